/* Commands that are one method of the VM's (control/methods.c), and those that wait for its end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/auto.h"
#include "cli/print.h"
#include "cli/vm.h"

static int each(enum control_method m, const void *args, int words, char **word)
{
	int status = EXIT_DONE;
	struct err err = {0};

	for (int i = 0; i < words; i++)
		if (vm_ask(word[i], m, args, NULL, &err) < 0)
			status = vm_trouble(word[i], &err);
	return status;
}

int cmd_pause(const void *opts, int words, char **word)
{
	return each(METHOD_PAUSE, NULL, words, word);
}

int cmd_resume(const void *opts, int words, char **word)
{
	return each(METHOD_RESUME, NULL, words, word);
}

int cmd_reset(const void *opts, int words, char **word)
{
	return each(METHOD_RESET, NULL, words, word);
}

int cmd_set(const void *opts, int words, char **word)
{
	return each(METHOD_SET, opts, 1, word);
}

int cmd_rename(const void *opts, int words, char **word)
{
	const struct rename_args args = {.name = word[1]};

	return each(METHOD_RENAME, &args, 1, word);
}

int cmd_stats(const void *opts, int words, char **word)
{
	struct err err = {0};
	json_t *j = NULL;

	return vm_ask(word[0], METHOD_STATS, NULL, &j, &err) < 0 ? vm_trouble(word[0], &err)
								 : print_json(j);
}

/* --- until it has ended --- */

struct ending {
	char text[4096];
	size_t len;
};

static bool end_piece(void *ctx, const char *bytes, size_t len)
{
	struct ending *g = ctx;
	size_t n = min_u64(len, sizeof g->text - 1 - g->len);

	memcpy(g->text + g->len, bytes, n);
	g->len += n;
	return true;
}

/* The lock is what tells that the process is gone. for_good: and no other is to follow. */
static void wait_for_lock(const char *name, bool for_good)
{
	const struct timespec ms = {0, 1000000};
	struct vm_seen v;

	for (int i = 0; i < 10000; i++) {
		bool there = vm_find(&v, name, NULL) == 0;

		vm_seen_done(&v);
		if (!there || (v.life != VM_RUNS && !(for_good && v.waits)))
			return;
		nanosleep(&ms, NULL);
	}
}

/* *ended: how it was, an object; NULL: nobody knows. */
static void follow_end(struct api_client *c, const char *name, bool for_good, json_t **ended)
{
	struct ending g = {0};
	const struct api_sink sink = {.piece = end_piece, .wake = -1, .ctx = &g};
	struct err err;

	*ended = NULL;
	if (api_follow(c, &control_methods[METHOD_WAIT], NULL, &sink, &err) == 0)
		*ended = json_loadb(g.text, g.len, 0, NULL);
	wait_for_lock(name, for_good);
}

static int tell_end(const char *name, json_t *ended, bool print)
{
	char text[256];
	json_t *status = json_object_get(ended, "status");
	int r = json_is_integer(status) ? (int)(json_integer_value(status) & 0xff)
					: EXIT_SIGNALLED + SIGKILL;

	if (print)
		printf("%s: %s\n", name,
		       json_is_object(ended) ? json_text(ended, "text", text, sizeof text)
					     : "its process was killed");
	json_decref(ended);
	return r;
}

static int wait_one(const char *name)
{
	struct api_client c;
	struct err err = {0};
	struct vm_seen v;
	json_t *ended;
	int status;

	if (vm_find(&v, name, &err) < 0)
		return vm_trouble(name, &err);
	if (v.life != VM_RUNS) {
		char why[160];

		vm_end_text(&v, why);
		printf("%s: %s\n", name, why);
		status = tell_end(name, json_incref(json_object_get(v.state, "ended")), false);
	} else if (vm_connect(&c, &v, &err) < 0) {
		status = vm_trouble(name, &err);
	} else {
		follow_end(&c, name, false, &ended);
		api_disconnect(&c);
		status = tell_end(name, ended, true);
	}
	vm_seen_done(&v);
	return status;
}

int cmd_wait(const void *opts, int words, char **word)
{
	int status = EXIT_DONE;

	for (int i = 0; i < words; i++)
		status = wait_one(word[i]);
	return status;
}

/* Nobody runs, but somebody is about to start it again. */
static int stop_restarts(const struct vm_seen *v, struct err *e)
{
	int r = vm_signal(v, "restart.lock", SIGTERM, e);

	if (r == 0)
		wait_for_lock(v->dir.name, true);
	return r;
}

static int end_one(const char *name, enum control_method m, const void *args, struct err *e)
{
	struct api_client c;
	struct vm_seen v;
	json_t *ended;
	int r = vm_find(&v, name, e);

	if (r < 0)
		return r;
	if (v.life != VM_RUNS && v.waits) {
		r = stop_restarts(&v, e);
		vm_seen_done(&v);
		return r;
	}
	r = vm_connect(&c, &v, e);
	if (r == 0) {
		r = api_call(&c, &control_methods[m], args, NULL, e);
		if (r == 0) {
			follow_end(&c, name, true, &ended);
			json_decref(ended);
		}
		api_disconnect(&c);
	}
	/* A process that does not even answer is ended as the kernel ends one. */
	if (r < 0 && m == METHOD_KILL && v.life == VM_RUNS && r != -EPROTO)
		if ((r = vm_signal(&v, "pid", SIGKILL, e)) == 0)
			wait_for_lock(name, true);
	vm_seen_done(&v);
	return r;
}

static int end_all(enum control_method m, const void *args, int words, char **word)
{
	int status = EXIT_DONE;
	struct err err = {0};

	for (int i = 0; i < words; i++)
		if (end_one(word[i], m, args, &err) < 0)
			status = vm_trouble(word[i], &err);
	return status;
}

int cmd_stop(const void *opts, int words, char **word)
{
	return end_all(METHOD_STOP, opts, words, word);
}

int cmd_kill(const void *opts, int words, char **word)
{
	return end_all(METHOD_KILL, NULL, words, word);
}
