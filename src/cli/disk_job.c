/* The surroundings of one disk command (disk.h): context, signals, errors, progress. */
#include "cli/disk.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"

static const int handled[] = {SIGINT, SIGTERM, SIGHUP};

const char *disk_format_name(int format)
{
	static const char *const names[] = {"raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi"};

	return format < 0 ? NULL : names[format];
}

static void signal_ready(struct loop_fd *f, uint32_t events)
{
	struct disk_job *j = container_of(f, struct disk_job, signals);
	struct signalfd_siginfo info;

	if (read(f->fd, &info, sizeof info) != sizeof info)
		return;
	if (j->signal) {
		if (j->temporary[0])
			unlink(j->temporary);
		_exit(EXIT_SIGNALLED + (int)info.ssi_signo);
	}
	j->signal = (int)info.ssi_signo;
}

static bool step(struct block_progress *p, uint64_t done, uint64_t total)
{
	struct disk_job *j = container_of(p, struct disk_job, step);

	j->done = done;
	j->total = total;
	progress_step(&j->progress, done, total);
	return !j->signal;
}

/* Before any thread is made, so that all of them inherit the mask. */
static int catch_signals(struct disk_job *j)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(handled); i++) {
		struct sigaction now;

		/* nohup */
		if (sigaction(handled[i], NULL, &now) < 0 || now.sa_handler != SIG_IGN)
			sigaddset(&set, handled[i]);
	}
	pthread_sigmask(SIG_BLOCK, &set, &j->old_mask);
	j->signals.ready = signal_ready;
	j->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return j->signals.fd < 0 ? err_sys(&j->err, errno, "signalfd") : 0;
}

int disk_begin(struct disk_job *j, const char *command, bool stoppable)
{
	int r = 0;

	*j = (struct disk_job){.command = command, .step.step = step, .signals.fd = -1};
	/* A limit on file sizes is an error like a full disk. */
	signal(SIGXFSZ, SIG_IGN);
	if (stoppable)
		r = catch_signals(j);
	if (r == 0)
		r = block_ctx_new(&j->ctx, NULL, BLOCK_ENGINE_AUTO, &j->err);
	if (r == 0 && stoppable)
		r = loop_add(block_ctx_loop(j->ctx), &j->signals, EPOLLIN, &j->err);
	return r;
}

void disk_complain(struct disk_job *j)
{
	if (!j->signal)
		fprintf(stderr, "holon %s: %s\n", j->command, j->err.text);
}

int disk_end(struct disk_job *j, int r)
{
	if (r < 0)
		disk_complain(j);
	if (j->temporary[0])
		unlink(j->temporary);
	if (j->ctx && j->signals.fd >= 0)
		loop_del(block_ctx_loop(j->ctx), &j->signals);
	block_ctx_free(j->ctx);
	if (j->signals.fd >= 0)
		close(j->signals.fd);
	if (r == 0)
		return EXIT_DONE;
	return j->signal ? EXIT_SIGNALLED + j->signal : EXIT_TROUBLE;
}

void disk_say(const char *fmt, ...)
{
	va_list args;

	if (!log_enabled(LOG_WARN))
		return;
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
}

int disk_open(struct disk_job *j, struct block **out, const struct block_opts *o)
{
	int r = block_open(out, j->ctx, o, &j->err);

	if (r == -EAGAIN && o->read_only && !o->no_lock)
		return err_wrap(&j->err, "(with -U it is read all the same)");
	return r;
}

int disk_close(struct disk_job *j, struct block *b, int r)
{
	struct err e = {0};
	int closed = block_close(b, &e);

	if (r < 0 || closed == 0)
		return r;
	j->err = e;
	return closed;
}
