#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define NAME_LEN 16 /* the kernel's */

static _Thread_local enum thread_role own_role;
/* Of the process, as the restrictions are that it is for. */
static void (*_Atomic on_start)(enum thread_role role);

struct start {
	enum thread_role role;
	char name[NAME_LEN];
	void *(*fn)(void *arg);
	void *arg;
};

const char *thread_role_name(enum thread_role role)
{
	static const char *const names[] = {
		[THREAD_MAIN] = "main",     [THREAD_VCPU] = "vcpu",   [THREAD_DEVICES] = "devices",
		[THREAD_DISK] = "disk",     [THREAD_NET] = "net",     [THREAD_API] = "api",
		[THREAD_WORKER] = "worker", [THREAD_SHARE] = "share",
	};

	return names[role];
}

enum thread_role thread_role(void)
{
	return own_role;
}

static void *begin(void *arg)
{
	struct start s = *(struct start *)arg;
	void (*first)(enum thread_role) = atomic_load(&on_start);

	free(arg);
	own_role = s.role;
	pthread_setname_np(pthread_self(), s.name);
	if (first)
		first(s.role);
	return s.fn(s.arg);
}

static void block_all(sigset_t *saved)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGSYS); /* comes of a call of the thread's own, and says which */
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

static int start_with(pthread_t *out, const struct thread_opts *o, struct start *s)
{
	pthread_attr_t attr;
	sigset_t saved;
	int r;

	pthread_attr_init(&attr);
	if (o->detached)
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (o->stack_bytes)
		pthread_attr_setstacksize(&attr, o->stack_bytes);
	if (o->no_signals)
		block_all(&saved);
	r = pthread_create(out, &attr, begin, s);
	if (o->no_signals)
		pthread_sigmask(SIG_SETMASK, &saved, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

int thread_start(pthread_t *out, const struct thread_opts *o, void *(*fn)(void *arg), void *arg)
{
	struct start *s = malloc(sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct start){.role = o->role, .fn = fn, .arg = arg};
	strncpy(s->name, o->name, sizeof s->name - 1);
	r = start_with(out, o, s);
	if (r < 0)
		free(s);
	return r;
}

void thread_on_start(void (*fn)(enum thread_role role))
{
	atomic_store(&on_start, fn);
}
