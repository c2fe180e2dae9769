/* holon ls, inspect, rm: what there is, without asking a VM more than must be. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/print.h"
#include "cli/vm.h"
#include "cli/vm_define.h"

struct listing {
	const struct ls_opts *opts;
	json_t *array;
	unsigned count;
};

static json_t *as_json(const struct vm_seen *v)
{
	json_t *j = json_deep_copy(v->state);
	char why[160];

	json_object_set_new(j, "name", json_string(v->dir.name));
	json_object_set_new(j, "state", json_string(vm_state_word(v)));
	vm_end_text(v, why);
	if (v->life == VM_DIED)
		json_object_set_new(j, "ended",
				    json_pack("{s:s, s:s}", "how", "died", "text", why));
	return j;
}

static void age_text(char to[24], json_int_t since)
{
	long long s = since ? (long long)time(NULL) - since : 0;

	if (s < 0)
		s = 0;
	if (s < 120)
		snprintf(to, 24, "%llds", s);
	else if (s < 7200)
		snprintf(to, 24, "%lldm", s / 60);
	else if (s < 172800)
		snprintf(to, 24, "%lldh", s / 3600);
	else
		snprintf(to, 24, "%lldd", s / 86400);
}

static void head(struct listing *l)
{
	if (!l->count++)
		printf("%-20s %-10s %-6s %4s %9s %6s %8s  %s\n", "NAME", "STATE", "ENGINE", "CPUS",
		       "MEMORY", "UP", "PID", "ENDED");
}

static void list_one(void *ctx, const struct vm_seen *v)
{
	struct listing *l = ctx;
	char why[160], engine[16], up[24], memory[SIZE_TEXT_LEN];

	if (l->array) {
		json_array_append_new(l->array, as_json(v));
		return;
	}
	if (l->opts->names) {
		puts(v->dir.name);
		return;
	}
	head(l);
	vm_end_text(v, why);
	age_text(up, json_integer_value(json_object_get(v->state, "started")));
	printf("%-20s %-10s %-6s %4lld %9s %6s %8lld  %s\n", v->dir.name, vm_state_word(v),
	       json_text(v->state, "engine", engine, sizeof engine),
	       (long long)json_integer_value(json_object_get(v->state, "cpus")),
	       size_text(memory,
			 (uint64_t)json_integer_value(json_object_get(v->state, "memory_bytes"))),
	       v->life == VM_RUNS ? up : "-",
	       v->life == VM_RUNS ? (long long)json_integer_value(json_object_get(v->state, "pid"))
				  : 0LL,
	       why);
}

/* One that never ran, or was forgotten, and can be started by its name. */
static void list_defined(void *ctx, const char *name)
{
	struct listing *l = ctx;
	struct vm_seen v;
	bool listed = vm_find(&v, name, NULL) == 0;

	vm_seen_done(&v);
	if (listed)
		return;
	if (l->array) {
		json_array_append_new(l->array,
				      json_pack("{s:s, s:s}", "name", name, "state", "defined"));
		return;
	}
	if (l->opts->names) {
		puts(name);
		return;
	}
	head(l);
	printf("%-20s %-10s\n", name, "defined");
}

int cmd_ls(const void *opts, int words, char **word)
{
	struct listing l = {.opts = opts};
	struct err err = {0};

	if (l.opts->json)
		l.array = json_array();
	if (vm_list(list_one, &l, &err) < 0 || define_list(list_defined, &l, &err) < 0) {
		json_decref(l.array);
		return vm_trouble("ls", &err);
	}
	if (l.array)
		return print_json(l.array);
	if (!l.count && !l.opts->names)
		puts("No VMs. 'holon run -d debian' starts one.");
	return EXIT_DONE;
}

static int ask_both(const struct vm_seen *v, json_t **info, struct err *e)
{
	struct api_client c;
	struct err none;
	json_t *stats;
	int r = vm_connect(&c, v, e);

	if (r < 0)
		return r;
	r = api_call(&c, &control_methods[METHOD_INFO], NULL, info, e);
	/* One that is starting, or ending, has none. */
	if (r == 0 && api_call(&c, &control_methods[METHOD_STATS], NULL, &stats, &none) == 0)
		json_object_set_new(*info, "stats", stats);
	api_disconnect(&c);
	return r;
}

int cmd_inspect(const void *opts, int words, char **word)
{
	struct err err = {0};
	json_t *j = NULL;
	struct vm_seen v;
	int r = vm_find(&v, word[0], &err);

	if (r < 0)
		return vm_trouble(word[0], &err);
	if (v.life == VM_RUNS)
		r = ask_both(&v, &j, &err);
	else
		j = as_json(&v);
	vm_seen_done(&v);
	return r < 0 ? vm_trouble(word[0], &err) : print_json(j);
}

static int remove_one(const char *name, bool force, struct err *e)
{
	struct vm_seen v;
	int r = vm_find(&v, name, e), defined;

	if (r == -ENOENT)
		return define_remove(name, NULL) == 0 ? 0 : r;
	if (r < 0)
		return r;
	if (v.waits && force)
		r = vm_signal(&v, "restart.lock", SIGTERM, e);
	else if (v.waits)
		r = err_set(e, EBUSY, "it is about to be started again; 'holon stop' ends that");
	if (r == 0 && v.life == VM_RUNS && force) {
		r = vm_signal(&v, "pid", SIGKILL, e);
		for (int i = 0; r == 0 && i < 500; i++) {
			const struct timespec ten_ms = {0, 10000000};

			if ((r = vm_remove(name, e)) != -EBUSY)
				break;
			r = 0;
			nanosleep(&ten_ms, NULL);
		}
	} else if (r == 0) {
		r = vm_remove(name, e);
	}
	vm_seen_done(&v);
	if (r < 0)
		return r;
	defined = define_remove(name, e);
	return defined == -ENOENT ? 0 : defined;
}

int cmd_rm(const void *opts, int words, char **word)
{
	const struct rm_opts *o = opts;
	int status = EXIT_DONE;
	struct err err = {0};

	for (int i = 0; i < words; i++)
		if (remove_one(word[i], o->force, &err) < 0)
			status = vm_trouble(word[i], &err);
	return status;
}
