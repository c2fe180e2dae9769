/* holon cp */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/client.h"
#include "base/auto.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/vm.h"

#define VM_MAX 256 /* bytes of a VM's name, or of its socket's path */

struct copy {
	struct tree_progress step;
	struct progress progress;
	uint64_t done, total;
};

static void step(struct tree_progress *p, uint64_t done, uint64_t total)
{
	struct copy *c = container_of(p, struct copy, step);

	c->done = done;
	c->total = total;
	progress_step(&c->progress, done, total);
}

static void note(struct tree_progress *p, const char *path, const char *why)
{
	log_warn("'%s' %s", path, why);
}

/* Where the path in "VM:PATH" begins; NULL: text is a path of this host. With a slash before the
 * colon it is one, unless it is a VM's socket that stands there. */
static const char *guest_part(const char *text)
{
	const char *colon = strchr(text, ':');
	char vm[VM_MAX];
	struct stat st;

	if (!colon || colon == text || (size_t)(colon - text) >= sizeof vm)
		return NULL;
	memcpy(vm, text, (size_t)(colon - text));
	vm[colon - text] = 0;
	if (strchr(vm, '/') && (stat(vm, &st) < 0 || !S_ISSOCK(st.st_mode)))
		return NULL;
	return colon + 1;
}

static int connect_to(struct wire *w, const char *text, const struct cp_opts *o, struct err *e)
{
	char vm[VM_MAX], path[VM_PATH_MAX + 32];
	size_t len = (size_t)(guest_part(text) - text) - 1;
	int r;

	memcpy(vm, text, len);
	vm[len] = 0;
	r = vm_vsock(vm, path, e);
	return r < 0 ? r : agent_connect(w, path, o->wait * 1000, e);
}

static int copy_one(const char *from, const char *to, const struct cp_opts *o, struct err *e)
{
	static struct wire w; /* large */
	struct copy c = {.step = {step, note}};
	bool out = guest_part(from);
	int r = connect_to(&w, out ? from : to, o, e);

	if (r < 0)
		return r;
	progress_begin(&c.progress, false);
	if (out)
		r = agent_get(&w, o->user, *guest_part(from) ? guest_part(from) : ".", to, &c.step,
			      e);
	else
		r = agent_put(&w, o->user, from, *guest_part(to) ? guest_part(to) : ".", &c.step,
			      e);
	progress_end(&c.progress, c.done, c.total);
	wire_done(&w);
	return r;
}

static int trouble(const struct err *e)
{
	fprintf(stderr, "holon cp: %s\n", e->text);
	return EXIT_TROUBLE;
}

int cmd_cp(const void *opts, int words, char **word)
{
	const struct cp_opts *o = opts;
	const char *to = word[words - 1];
	int status = EXIT_DONE;
	char inside[4096];
	struct err e = {0};

	for (int i = 0; i < words - 1; i++)
		if (!guest_part(word[i]) == !guest_part(to)) {
			if (guest_part(to))
				err_set(&e, EINVAL,
					"'%s' and '%s' are both in guests: copy to a place on "
					"this host first",
					word[i], to);
			else
				err_set(&e, EINVAL, "neither '%s' nor '%s' is in a guest (VM:PATH)",
					word[i], to);
			return trouble(&e);
		}
	/* Several go into a directory, or nowhere. */
	if (words > 2 && to[strlen(to) - 1] != '/') {
		const char *in_guest = guest_part(to);

		/* "VM:" alone is the user's home, and not the root. */
		if (snprintf(inside, sizeof inside, "%s%s", to,
			     in_guest && !*in_guest ? "./" : "/") >= (int)sizeof inside) {
			err_sys(&e, ENAMETOOLONG, "'%.40s...'", to);
			return trouble(&e);
		}
		to = inside;
	}
	for (int i = 0; i < words - 1; i++)
		if (copy_one(word[i], to, o, &e) < 0)
			status = trouble(&e);
	return status;
}
