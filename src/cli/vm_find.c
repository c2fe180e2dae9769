/* What the commands on VMs share: finding one, asking it, and what to say of one that is gone. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/vm.h"

const char *json_text(const json_t *object, const char *member, char *to, size_t len)
{
	const char *text = json_string_value(json_object_get(object, member));

	snprintf(to, len, "%s", text ? text : "");
	for (char *p = to; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return to;
}

const char *vm_state_word(const struct vm_seen *v)
{
	static const char *const words[] = {"starting", "running", "paused", "stopping"};
	const char *said = json_string_value(json_object_get(v->state, "state"));

	if (v->life != VM_RUNS)
		return v->waits ? "restarting" : v->life == VM_ENDED ? "ended" : "died";
	if (!said) /* it has the lock, and has written nothing yet */
		return "starting";
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(words[i], said))
			return words[i];
	return "running";
}

void vm_end_text(const struct vm_seen *v, char to[160])
{
	*to = 0;
	if (v->life == VM_ENDED)
		json_text(json_object_get(v->state, "ended"), "text", to, 160);
	else if (v->life == VM_DIED && !vm_last_word(&v->dir, to, 160))
		snprintf(to, 160,
			 "its process was killed: it left no word (kill -9, or the host ran "
			 "out of memory)");
}

struct each {
	void (*each)(void *ctx, const char *name);
	void *ctx;
};

static void if_it_runs(void *ctx, const struct vm_seen *v)
{
	const struct each *to = ctx;

	if (v->life == VM_RUNS || v->waits)
		to->each(to->ctx, v->dir.name);
}

int vm_each_that_runs(void (*each)(void *ctx, const char *name), void *ctx, struct err *e)
{
	return vm_list(if_it_runs, &(struct each){each, ctx}, e);
}

static int not_running(const struct vm_seen *v, struct err *e)
{
	char why[160];

	vm_end_text(v, why);
	return err_set(e, ESHUTDOWN, "it does not run: %s", why);
}

int vm_connect(struct api_client *c, const struct vm_seen *v, struct err *e)
{
	char path[VM_PATH_MAX + 32];

	if (v->life != VM_RUNS)
		return not_running(v, e);
	vm_dir_file(&v->dir, "control", path);
	return api_connect(c, path, e);
}

int vm_ask(const char *name, enum control_method m, const void *args, json_t **answer,
	   struct err *e)
{
	struct api_client c;
	struct vm_seen v;
	int r = vm_find(&v, name, e);

	if (r < 0)
		return r;
	r = vm_connect(&c, &v, e);
	if (r == 0) {
		r = api_call(&c, &control_methods[m], args, answer, e);
		api_disconnect(&c);
	}
	vm_seen_done(&v);
	return r;
}

int vm_vsock(const char *name, char path[VM_PATH_MAX + 32], struct err *e)
{
	struct vm_seen v;
	int r;

	if (strchr(name, '/')) {
		snprintf(path, VM_PATH_MAX + 32, "%s", name);
		return 0;
	}
	r = vm_find(&v, name, e);
	if (r < 0)
		return r;
	if (v.life == VM_RUNS)
		vm_dir_file(&v.dir, "vsock", path);
	else
		r = not_running(&v, e);
	vm_seen_done(&v);
	return r;
}

int vm_trouble(const char *name, const struct err *e)
{
	fprintf(stderr, "holon: %s: %s\n", name, e->text);
	return EXIT_TROUBLE;
}

/* The pid is that of who holds the lock: it is looked at again when the process cannot have been
 * replaced by another any more. */
int vm_signal(const struct vm_seen *v, const char *file, int sig, struct err *e)
{
	char path[VM_PATH_MAX + 32];
	bool restart = !strcmp(file, "restart.lock");
	AUTO_FCLOSE FILE *f = NULL;
	AUTO_CLOSE int process = -1;
	struct vm_seen again;
	int pid = 0, r;

	vm_dir_file(&v->dir, file, path);
	f = fopen(path, "re");
	if (!f || fscanf(f, "%d", &pid) != 1 || pid <= 1)
		return err_set(e, ESRCH, "which process it is is not known");
	process = pidfd_open(pid, 0);
	if (process < 0)
		return err_sys(e, errno, "process %d", pid);
	if ((r = vm_find(&again, v->dir.name, e)) < 0)
		return r;
	vm_seen_done(&again);
	if (!(restart ? again.waits : again.life == VM_RUNS))
		return 0; /* it ended by itself */
	return pidfd_send_signal(process, sig, NULL, 0) < 0 ? err_sys(e, errno, "process %d", pid)
							    : 0;
}
