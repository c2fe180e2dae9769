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
#include "cli/vm_define.h"

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

/* --- ending several --- */

struct to_end {
	const char *name;
	json_t *after; /* VMs that it needs, by its definition: they end later; or NULL; owned */
	unsigned wave;
	struct vm_seen v;
	struct api_client c;
	bool asked; /* c waits for its end */
};

/* It is asked to end; finish_end waits for that. */
static int begin_end(struct to_end *o, enum control_method m, const void *args, struct err *e)
{
	int r = vm_find(&o->v, o->name, e);

	if (r < 0)
		return r;
	if (o->v.life != VM_RUNS && o->v.waits)
		return stop_restarts(&o->v, e);
	r = vm_connect(&o->c, &o->v, e);
	if (r == 0) {
		r = api_call(&o->c, &control_methods[m], args, NULL, e);
		o->asked = r == 0;
		if (r < 0)
			api_disconnect(&o->c);
	}
	/* A process that does not even answer is ended as the kernel ends one. */
	if (r < 0 && m == METHOD_KILL && o->v.life == VM_RUNS && r != -EPROTO)
		if ((r = vm_signal(&o->v, "pid", SIGKILL, e)) == 0)
			wait_for_lock(o->name, true);
	return r;
}

static void finish_end(struct to_end *o)
{
	json_t *ended;

	if (o->asked) {
		follow_end(&o->c, o->name, true, &ended);
		json_decref(ended);
		api_disconnect(&o->c);
		o->asked = false;
	}
}

static bool needs(const struct to_end *o, const char *name)
{
	json_t *other;
	size_t i;

	json_array_foreach(o->after, i, other)
	{
		const char *text = json_string_value(other);

		if (text && !strcmp(text, name))
			return true;
	}
	return false;
}

/* What nobody of those who end now needs any more ends at once. Returns how many waves there are; a
 * circle (no start would follow it) ends in the last. */
static unsigned make_waves(struct to_end *o, int n)
{
	unsigned last = 0;
	bool moved = true;

	for (int i = 0; i < n; i++)
		o[i].after = define_after(o[i].name);
	for (int round = 0; moved && round < n; round++) {
		moved = false;
		for (int i = 0; i < n; i++)
			for (int k = 0; k < n; k++)
				if (o[k].wave <= o[i].wave && needs(&o[i], o[k].name)) {
					o[k].wave = o[i].wave + 1;
					last = o[k].wave > last ? o[k].wave : last;
					moved = true;
				}
	}
	return last + 1;
}

static int end_wave(struct to_end *o, int n, enum control_method m, const void *args, unsigned wave)
{
	int status = EXIT_DONE;
	struct err err = {0};

	for (int i = 0; i < n; i++)
		if (o[i].wave == wave && begin_end(&o[i], m, args, &err) < 0)
			status = vm_trouble(o[i].name, &err);
	for (int i = 0; i < n; i++)
		finish_end(&o[i]);
	return status;
}

static int end_all(enum control_method m, const void *args, int words, char **word)
{
	AUTO_FREE struct to_end *o = calloc((size_t)words, sizeof *o);
	int status = EXIT_DONE;
	unsigned waves = 1;

	if (!o) {
		fprintf(stderr, "holon: out of memory\n");
		return EXIT_TROUBLE;
	}
	for (int i = 0; i < words; i++)
		o[i].name = word[i];
	if (m == METHOD_STOP && words > 1)
		waves = make_waves(o, words);
	for (unsigned wave = 0; wave < waves; wave++) {
		int s = end_wave(o, words, m, args, wave);

		status = s != EXIT_DONE ? s : status;
	}
	for (int i = 0; i < words; i++) {
		json_decref(o[i].after);
		vm_seen_done(&o[i].v);
	}
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
