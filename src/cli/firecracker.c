/* holon firecracker: the main thread waits until the API wants the VM, builds it, and runs it. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "api/server.h"
#include "base/auto.h"
#include "base/log.h"
#include "cli/run_vm.h"
#include "firecracker/firecracker.h"

enum phase { IDLE, WANTED, RUNNING, FAILED };

struct session {
	struct fc_host host;
	struct run_hooks hooks;
	struct fc *fc;
	struct api_server *server; /* or NULL */
	int wanted, signals;       /* an eventfd, a signalfd; -1: none */
	pthread_mutex_t lock;      /* guards what follows */
	pthread_cond_t changed;
	enum phase phase;
	struct err failure;
};

static void set_phase(struct session *s, enum phase p)
{
	AUTO_LOCK(&s->lock);
	s->phase = p;
	pthread_cond_broadcast(&s->changed);
}

/* --- the API's thread --- */

static int start(struct fc_host *h, struct err *e)
{
	struct session *s = container_of(h, struct session, host);
	const uint64_t one = 1;
	int r = 0;

	fc_starting(s->fc, true);
	AUTO_LOCK(&s->lock);
	s->phase = WANTED;
	if (write(s->wanted, &one, sizeof one) != sizeof one)
		return err_sys(e, errno, "eventfd");
	while (s->phase == WANTED)
		pthread_cond_wait(&s->changed, &s->lock);
	if (s->phase == FAILED) {
		*e = s->failure;
		r = -e->code;
		s->phase = IDLE;
		fc_starting(s->fc, false);
	}
	return r;
}

/* --- the main thread: around the machine --- */

static int config(struct run_hooks *h, struct machine_config *c, struct err *e)
{
	return fc_config(container_of(h, struct session, hooks)->fc, c, e);
}

static int started(struct run_hooks *h, struct control *c, struct machine *m, struct err *e)
{
	struct session *s = container_of(h, struct session, hooks);
	int r = fc_attach(s->fc, c, m, e);

	if (r == 0)
		set_phase(s, RUNNING);
	return r;
}

static void ended(struct run_hooks *h, const struct err *failure)
{
	struct session *s = container_of(h, struct session, hooks);

	if (s->phase == RUNNING) {
		api_server_free(s->server);
		s->server = NULL;
	} else {
		s->failure = failure ? *failure : (struct err){.code = EIO};
		set_phase(s, FAILED);
	}
	fc_detach(s->fc);
}

/* --- the main thread: before --- */

/* 0: the VM is wanted; else with which status to end. */
static int wait_for_wish(struct session *s)
{
	struct pollfd p[] = {{.fd = s->wanted, .events = POLLIN},
			     {.fd = s->signals, .events = POLLIN}};
	struct signalfd_siginfo info;
	uint64_t count;

	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return EXIT_TROUBLE;
		if (p[1].revents && read(s->signals, &info, sizeof info) == sizeof info)
			return EXIT_SIGNALLED + (int)info.ssi_signo;
		if (p[0].revents && read(s->wanted, &count, sizeof count) == sizeof count)
			return 0;
	}
}

static int open_descriptors(struct session *s, struct err *e)
{
	sigset_t set;

	run_block_signals();
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->wanted = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->signals < 0 || s->wanted < 0 ? err_sys(e, errno, "signalfd, eventfd") : 0;
}

static void close_descriptors(struct session *s)
{
	if (s->signals >= 0)
		close(s->signals);
	if (s->wanted >= 0)
		close(s->wanted);
}

/* The options that stand for requests. */
static int apply(struct session *s, const struct firecracker_opts *o, struct err *e)
{
	json_t *body;
	int r = 0;

	if (o->log_path || o->level) {
		body = json_pack("{s:s*, s:s*}", "log_path", o->log_path, "level", o->level);
		r = fc_put(s->fc, "/logger", body, e);
		json_decref(body);
	}
	if (r == 0 && o->metrics_path) {
		body = json_pack("{s:s}", "metrics_path", o->metrics_path);
		r = fc_put(s->fc, "/metrics", body, e);
		json_decref(body);
	}
	if (r == 0 && o->metadata)
		r = fc_load_metadata(s->fc, o->metadata, e);
	if (r == 0 && o->config_file)
		r = fc_load_config(s->fc, o->config_file, e);
	return r;
}

static int set_up(struct session *s, const struct firecracker_opts *o, struct err *e)
{
	const struct fc_opts opts = {o->id, o->http_api_max_payload_size, o->mmds_size_limit};
	int r = open_descriptors(s, e);

	if (r == 0)
		r = fc_new(&s->fc, &opts, &s->host, e);
	if (r == 0)
		r = apply(s, o, e);
	if (r == 0 && o->config_file)
		fc_starting(s->fc, true);
	if (r == 0 && !o->no_api)
		r = api_server_new(&s->server, o->api_sock, fc_table(s->fc), e);
	return r;
}

static int run(struct session *s, const struct firecracker_opts *o)
{
	struct run_opts run_opts = run_defaults;
	int status;

	run_opts.engine = o->engine;
	run_opts.force = o->force;
	run_opts.stop_timeout = 0; /* a signal ends it, as it does Firecracker */
	s->hooks = (struct run_hooks){fc_id(s->fc), config, started, ended};
	do {
		status = o->config_file ? 0 : wait_for_wish(s);
		if (status)
			return status;
		status = run_vm(&run_opts, &s->hooks);
	} while (s->phase != RUNNING && !o->config_file);
	return status;
}

int cmd_firecracker(const void *opts, int words, char **word)
{
	const struct firecracker_opts *o = opts;
	struct session s = {.host.start = start, .wanted = -1, .signals = -1};
	struct err err = {0};
	int status;

	if (o->version) {
		printf("Firecracker v%s (its API, served by Holon %s)\n", FC_API_VERSION,
		       HOLON_VERSION);
		return EXIT_DONE;
	}
	pthread_mutex_init(&s.lock, NULL);
	pthread_cond_init(&s.changed, NULL);
	if (set_up(&s, o, &err) < 0) {
		log_error("%s", err.text);
		status = EXIT_TROUBLE;
	} else {
		status = run(&s, o);
	}
	api_server_free(s.server);
	fc_free(s.fc);
	close_descriptors(&s);
	pthread_cond_destroy(&s.changed);
	pthread_mutex_destroy(&s.lock);
	return status;
}
