#include "control/control_priv.h"
#include "control/methods.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "confine/confine.h"

/* --- state --- */

const char *control_end_name(enum control_end how)
{
	static const char *const names[] = {
		[CONTROL_POWER_OFF] = "power-off",   [CONTROL_STOPPED] = "stopped",
		[CONTROL_KILLED] = "killed",         [CONTROL_RESET] = "reset",
		[CONTROL_FAILED] = "failed",         [CONTROL_TRIPLE_FAULT] = "triple-fault",
		[CONTROL_DEBUG_EXIT] = "debug-exit",
	};

	return names[how];
}

static const char *state_name(const struct control *c)
{
	if (c->state == CONTROL_OVER)
		return "ended";
	if (c->stopping)
		return "stopping";
	return c->state == CONTROL_STARTING  ? "starting"
	       : c->state == CONTROL_RUNNING ? "running"
					     : "paused";
}

json_t *control_info(struct control *c)
{
	json_t *j;

	AUTO_LOCK(&c->lock);
	j = json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:i, s:I, s:b, s:s, s:s}", "name",
		      c->dir.name, "pid", (int)getpid(), "state", state_name(c), "started",
		      (json_int_t)c->started, "engine", c->engine ? c->engine : "", "engine_reason",
		      c->engine_reason ? c->engine_reason : "", "cpus", (int)c->cpus,
		      "memory_bytes", (json_int_t)c->memory_bytes, "background", c->background,
		      "restart", c->restart, "confined", c->confined);
	if (j && *c->unconfined)
		json_object_set_new(j, "unconfined", json_string(c->unconfined));
	if (j && c->shares)
		json_object_set_new(j, "shares", json_deep_copy(c->shares));
	if (j && c->state == CONTROL_OVER)
		json_object_set_new(j, "ended",
				    json_pack("{s:s, s:i, s:s, s:I}", "how",
					      control_end_name(c->end), "status", c->end_status,
					      "text", c->end_text, "time", (json_int_t)time(NULL)));
	return j;
}

static void write_state(struct control *c)
{
	json_t *j = control_info(c);
	AUTO_FREE char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	struct err err;

	json_decref(j);
	if (text && vm_dir_write(&c->dir, "state.json", text, &err) < 0)
		log_warn("%s: %s", c->dir.name, err.text);
}

static void set_state(struct control *c, enum control_state state, const char *event)
{
	pthread_mutex_lock(&c->lock);
	c->state = state;
	pthread_mutex_unlock(&c->lock);
	write_state(c);
	events_add(&c->events, c->dir.name, event, NULL);
	if (c->server)
		api_server_wake(c->server);
}

/* --- what happens --- */

static void news(struct machine_watcher *w, enum machine_news what)
{
	struct control *c = container_of(w, struct control, watcher);

	switch (what) {
	case MACHINE_PAUSED: set_state(c, CONTROL_PAUSED, "paused"); break;
	case MACHINE_RESUMED: set_state(c, CONTROL_RUNNING, "resumed"); break;
	case MACHINE_WAS_RESET:
		events_add(&c->events, c->dir.name, "reset", NULL);
		if (c->server)
			api_server_wake(c->server);
		break;
	}
}

/* Warned of in the log, too, before it hurts. */
static void memory_news(struct machine_watcher *w, const struct machine_memory_news *n)
{
	struct control *c = container_of(w, struct control, watcher);

	switch (n->what) {
	case MACHINE_BALLOON:
		events_add(&c->events, c->dir.name, "balloon",
			   json_pack("{s:s, s:I}", "why", n->why, "bytes", (json_int_t)n->bytes));
		break;
	case MACHINE_HOST_LEVEL:
		if (n->worse)
			log_warn("%s: the host is short of memory: %llu of %llu MiB are left",
				 c->dir.name, (unsigned long long)(n->bytes >> 20),
				 (unsigned long long)(n->of_bytes >> 20));
		events_add(&c->events, c->dir.name, "host-memory",
			   json_pack("{s:s, s:I}", "why", n->why, "bytes", (json_int_t)n->bytes));
		break;
	case MACHINE_FAULT_STORM:
		log_warn("%s: its memory is swapped in all the time: %llu pages a second",
			 c->dir.name, (unsigned long long)n->count);
		events_add(&c->events, c->dir.name, "fault-storm",
			   json_pack("{s:s, s:I}", "why", n->why, "bytes",
				     (json_int_t)n->count * 4096));
		break;
	}
	if (c->server)
		api_server_wake(c->server);
}

static void console_output(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
	struct control *c = container_of(s, struct control, sink);

	console_log_put(&c->log, bytes, len);
	if (atomic_load_explicit(&c->console_followed, memory_order_relaxed))
		api_server_wake(c->server);
	if (c->next_sink)
		c->next_sink->put(c->next_sink, bytes, len);
}

struct byte_sink *control_sink(struct control *c, struct byte_sink *next)
{
	c->next_sink = next;
	return &c->sink;
}

struct machine_watcher *control_watcher(struct control *c)
{
	return &c->watcher;
}

const struct vm_dir *control_dir(const struct control *c)
{
	return &c->dir;
}

/* --- to the loop thread --- */

static void run_call(struct loop_call *call)
{
	struct control *c = container_of(call, struct control, call);
	int r = c->call_fn(c, c->call_arg, c->call_err);

	AUTO_LOCK(&c->lock);
	c->call_result = r;
	c->call_done = true;
	pthread_cond_broadcast(&c->changed);
}

static int on_loop(struct control *c, int (*fn)(struct control *c, void *arg, struct err *e),
		   void *arg, struct err *e)
{
	AUTO_LOCK(&c->lock);
	if (!c->machine)
		return err_set(e, ESHUTDOWN, "the VM has ended");
	c->call_fn = fn;
	c->call_arg = arg;
	c->call_err = e;
	c->call_done = false;
	loop_post(machine_loop(c->machine), &c->call);
	while (!c->call_done && c->machine)
		pthread_cond_wait(&c->changed, &c->lock);
	return c->call_done ? c->call_result : err_set(e, ESHUTDOWN, "the VM has ended");
}

int control_on_loop(struct control *c, int (*fn)(struct control *c, void *arg, struct err *e),
		    void *arg, struct err *e)
{
	AUTO_LOCK(&c->call_lock);
	return on_loop(c, fn, arg, e);
}

struct machine_call {
	int (*fn)(struct machine *m, void *arg, struct err *e);
	void *arg;
};

static int call_machine(struct control *c, void *arg, struct err *e)
{
	const struct machine_call *call = arg;

	return call->fn(c->machine, call->arg, e);
}

int control_call(struct control *c, int (*fn)(struct machine *m, void *arg, struct err *e),
		 void *arg, struct err *e)
{
	struct machine_call call = {fn, arg};

	return control_on_loop(c, call_machine, &call, e);
}

bool control_paused(struct control *c)
{
	AUTO_LOCK(&c->lock);
	return c->state == CONTROL_PAUSED;
}

/* --- its life --- */

static int open_all(struct control *c, const struct control_opts *o, struct err *e)
{
	char path[VM_PATH_MAX + 32];
	int r = o->confine ? dir_keeper_start(&c->keeper, e) : 0;

	if (r < 0 || (r = vm_dir_claim(&c->dir, o->name, o->exact, e)) < 0)
		return r;
	vm_dir_file(&c->dir, "console.log", path);
	return console_log_new(&c->log, path, e);
}

int control_new(struct control **out, const struct control_opts *o, struct err *e)
{
	struct control *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return err_set(e, ENOMEM, "out of memory");
	c->state = CONTROL_STARTING;
	c->background = o->background;
	c->started = time(NULL);
	c->sink.put = console_output;
	c->watcher.news = news;
	c->watcher.memory = memory_news;
	c->watcher.part = control_part_news;
	c->call.run = run_call;
	c->dir.lock = c->keeper.fd = -1;
	c->confined = "no";
	snprintf(c->restart, sizeof c->restart, "%s", o->restart ? o->restart : "no");
	pthread_mutex_init(&c->call_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	events_init(&c->events);
	r = open_all(c, o, e);
	if (r < 0) {
		control_free(c);
		return r;
	}
	write_state(c);
	*out = c;
	return 0;
}

static json_t *shares_json(const struct machine_config *config)
{
	json_t *all = config->shares ? json_array() : NULL;

	for (unsigned i = 0; i < config->shares; i++) {
		const struct machine_share *s = &config->share[i];

		json_array_append_new(all, json_pack("{s:s, s:s, s:b}", "dir", s->dir, "tag",
						     s->tag, "read_only", s->read_only));
	}
	return all;
}

int control_confine(struct control *c, struct confine_profile *p, const char *const *sockets,
		    unsigned n, struct err *e)
{
	char path[VM_PATH_MAX + 32];
	int r = 0;

	c->host_network = p->network;
	for (unsigned i = 0; i < n && r == 0; i++)
		if (sockets[i])
			r = dir_keeper_add_socket(&c->keeper, sockets[i], e);
	if (r < 0 || (r = dir_keeper_seal(&c->keeper, &c->dir, e)) < 0 ||
	    (r = confine_allow(p, c->dir.path, CONFINE_MANAGE, e)) < 0)
		return r;
	vm_dir_file(&c->dir, "died", path);
	p->violation_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	return p->violation_fd < 0 ? err_sys(e, errno, "'%s'", path) : 0;
}

int control_confined(struct control *c, const struct confine_state *s, struct err *e)
{
	int fd = open(c->dir.path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, errno, "'%s'", c->dir.path);
	c->dir.fd = fd;
	c->confined = s->layers == CONFINE_ALL ? "yes" : s->layers ? "partly" : "no";
	snprintf(c->unconfined, sizeof c->unconfined, "%s", s->missing);
	return 0;
}

int control_attach(struct control *c, struct machine *m, const struct machine_config *config,
		   struct control_host *h, struct err *e)
{
	char path[VM_PATH_MAX + 32];

	c->host = h;
	c->machine = m;
	c->engine = machine_engine(m);
	c->engine_reason = strdup(machine_engine_reason(m));
	c->cpus = config->cpus;
	c->memory_bytes = config->memory_bytes;
	c->shares = shares_json(config);
	c->table = (struct api_table){
		.title = "Holon VM",
		.description = "What can be asked of a running VM, on its control socket.",
		.method = control_methods,
		.methods = control_methods_count,
		.refuses = control_refuses,
		.ctx = c,
	};
	vm_dir_file(&c->dir, "control", path);
	return api_server_new(&c->server, path, &c->table, e);
}

void control_running(struct control *c)
{
	set_state(c, machine_paused(c->machine) ? CONTROL_PAUSED : CONTROL_RUNNING, "started");
}

void control_stopping(struct control *c, const char *why)
{
	bool first;

	pthread_mutex_lock(&c->lock);
	first = !c->stopping;
	c->stopping = why;
	pthread_mutex_unlock(&c->lock);
	if (!first)
		return;
	write_state(c);
	events_add(&c->events, c->dir.name, "stopping", json_pack("{s:s}", "why", why));
	if (c->server)
		api_server_wake(c->server);
}

void control_detach(struct control *c)
{
	AUTO_LOCK(&c->lock);
	c->machine = NULL;
	pthread_cond_broadcast(&c->changed);
}

void control_ended(struct control *c, enum control_end how, int status, const char *text)
{
	pthread_mutex_lock(&c->lock);
	c->end = how;
	c->end_status = status;
	snprintf(c->end_text, sizeof c->end_text, "%s", text);
	c->state = CONTROL_OVER;
	pthread_mutex_unlock(&c->lock);
	write_state(c);
	events_add(&c->events, c->dir.name, "ended",
		   json_pack("{s:s, s:i, s:s}", "how", control_end_name(how), "status", status,
			     "text", text));
	if (c->server)
		api_server_wake(c->server);
}

int control_rename(struct control *c, const char *name, struct err *e)
{
	char path[VM_PATH_MAX + 32], before[VM_NAME_MAX + 1];
	int r;

	if (strcmp(c->restart, "no") != 0)
		return err_set(e, EBUSY, "a VM that is started again when it ends keeps its name");
	pthread_mutex_lock(&c->lock);
	strcpy(before, c->dir.name);
	r = c->keeper.fd >= 0 ? dir_keeper_rename(&c->keeper, &c->dir, name, e)
			      : vm_dir_rename(&c->dir, name, e);
	pthread_mutex_unlock(&c->lock);
	if (r < 0)
		return r;
	vm_dir_file(&c->dir, "control", path);
	api_server_moved(c->server, path);
	write_state(c);
	events_add(&c->events, name, "renamed", json_pack("{s:s}", "before", before));
	api_server_wake(c->server);
	return 0;
}

static void release(struct control *c, bool keep)
{
	if (!c->dir.fd) {
		dir_keeper_done(&c->keeper);
		vm_dir_release(&c->dir, keep);
		return;
	}
	dir_keeper_release(&c->keeper, keep);
	close(c->dir.lock);
	close(c->dir.fd);
}

void control_free(struct control *c)
{
	if (!c)
		return;
	api_server_free(c->server);
	/* One that nobody watches over is gone when its terminal is. */
	release(c, c->background);
	console_log_done(&c->log);
	events_done(&c->events);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->call_lock);
	free(c->engine_reason);
	json_decref(c->shares);
	free(c);
}
