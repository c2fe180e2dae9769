/* Plugging disks and network cards in and out of a VM that runs. Files and taps are opened here, by
 * whoever calls, and go to the VM as descriptors: it can open nothing by itself any more. */
#include "cli/plug.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "block/block.h"
#include "cli/suboptions.h"
#include "cli/vm.h"
#include "control/plug_args.h"

#define LOOK_NS UINT64_C(20000000)

/* --- disks --- */

static bool is_uri(const char *file)
{
	return strstr(file, "://");
}

/* As the VM will call it, which is elsewhere. */
static char *absolute(const char *file)
{
	const char *path = strncmp(file, "file:", 5) ? file : file + 5;
	AUTO_FREE char *here = NULL;
	char *to;

	if (is_uri(file) || *path == '/')
		return strdup(is_uri(file) ? file : path);
	here = getcwd(NULL, 0);
	return here && asprintf(&to, "%s/%s", here, path) >= 0 ? to : NULL;
}

/* names: of the files whose descriptors are in fds. */
static int open_layer(const char *file, bool write, struct option_list *names, struct api_fds *fds,
		      struct err *e)
{
	const char *path = strncmp(file, "file:", 5) ? file : file + 5;
	char *copy;
	int fd;

	if (is_uri(file))
		return 0;
	if (fds->n == API_FDS_MAX || names->n == OPTION_LIST_MAX)
		return err_set(e, E2BIG, "more than %u images on top of each other", names->n);
	fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_sys(e, errno, "open '%s'", path);
	fds->fd[fds->n++] = fd;
	copy = strdup(file);
	if (!copy)
		return err_set(e, ENOMEM, "out of memory");
	names->value[names->n++] = copy;
	return 0;
}

/* Who writes to a disk, and who else may not, is looked at by the VM, whose the locks are. */
static int open_chain(struct disk_args *a, struct api_fds *fds, struct err *e)
{
	static const char *const formats[] = {"raw", "qcow2"};
	const struct block_opts o = {.file = a->file,
				     .format = a->format < 0 ? NULL : formats[a->format],
				     .read_only = true,
				     .no_lock = true,
				     .repair_later = true,
				     .cache = BLOCK_CACHE_WRITEBACK};
	struct block_ctx *c;
	struct block *top;
	int r = block_ctx_new(&c, NULL, BLOCK_ENGINE_THREADS, e);

	if (r < 0)
		return r;
	r = block_open(&top, c, &o, e);
	if (r == 0) {
		for (struct block *b = top; b && r == 0; b = block_backing(b))
			r = open_layer(block_file(b), b == top && !a->ro, &a->opened, fds, e);
		(void)!block_close(top, NULL);
	}
	block_ctx_free(c);
	return r;
}

static int ask_disk(struct api_client *c, const char *text, json_t **answer, struct err *e)
{
	struct disk_args a = disk_defaults;
	AUTO_FREE char *storage = NULL, *file = NULL;
	int r = suboptions_parse(disk_parts, text, &a.file, &a, &storage, e);

	if (r < 0)
		return r;
	a.file = file = absolute(a.file);
	if (!file)
		return err_set(e, ENOMEM, "out of memory");
	if (!is_uri(file))
		r = open_chain(&a, &c->fds, e);
	if (r == 0)
		r = api_call(c, &control_methods[METHOD_ATTACH_DISK], &a, answer, e);
	for (unsigned i = 0; i < a.opened.n; i++)
		free((char *)a.opened.value[i]);
	return r;
}

/* --- network cards --- */

static int ask_net(struct api_client *c, const char *text, json_t **answer, struct err *e)
{
	struct net_args a = net_defaults;
	AUTO_FREE char *storage = NULL;
	struct machine_net n = {0};
	int r = suboptions_parse(net_parts, text, &a.net, &a, &storage, e);

	if (r < 0 || (r = net_args_fill(&n, &a, e)) < 0)
		return r;
	if (n.net.kind == NET_TAP || n.net.kind == NET_BRIDGE) {
		r = net_tap_fd(&n.net, e);
		if (r < 0)
			return r;
		c->fds.fd[c->fds.n++] = r;
	}
	return api_call(c, &control_methods[METHOD_ATTACH_NET], &a, answer, e);
}

/* --- the commands --- */

static int connect_to(struct api_client *c, const char *name, struct err *e)
{
	struct vm_seen v;
	int r = vm_find(&v, name, e);

	if (r < 0)
		return r;
	r = vm_connect(c, &v, e);
	vm_seen_done(&v);
	return r;
}

static int attach(struct api_client *c, const struct option_list *list,
		  int (*ask)(struct api_client *c, const char *text, json_t **answer,
			     struct err *e),
		  struct err *e)
{
	for (unsigned i = 0; i < list->n; i++) {
		json_t *answer = NULL;
		char id[32];
		int r = ask(c, list->value[i], &answer, e);

		if (r < 0)
			return r;
		puts(json_text(answer, "id", id, sizeof id));
		json_decref(answer);
	}
	return 0;
}

static int attach_check(const void *opts, int words, char **word, struct err *e)
{
	const struct attach_opts *o = opts;

	if (!o->disks.n && !o->nets.n)
		return err_set(e, EINVAL, "nothing to attach: --disk or --net");
	return 0;
}

static int cmd_attach(const void *opts, int words, char **word)
{
	const struct attach_opts *o = opts;
	struct api_client c;
	struct err err = {0};
	int r = connect_to(&c, word[0], &err);

	if (r < 0)
		return vm_trouble(word[0], &err);
	r = attach(&c, &o->disks, ask_disk, &err);
	if (r == 0)
		r = attach(&c, &o->nets, ask_net, &err);
	api_disconnect(&c);
	return r < 0 ? vm_trouble(word[0], &err) : EXIT_DONE;
}

/* 1: it is there; 0: it is not. */
static int is_there(struct api_client *c, const char *id, struct err *e)
{
	json_t *info = NULL, *part;
	int r = api_call(c, &control_methods[METHOD_INFO], NULL, &info, e);
	char other[32];
	size_t i;

	if (r < 0)
		return r;
	json_array_foreach(json_object_get(info, "devices"), i,
			   part) if (!strcmp(json_text(part, "id", other, sizeof other), id)) r = 1;
	json_decref(info);
	return r;
}

static int wait_gone(struct api_client *c, const char *id, unsigned seconds, struct err *e)
{
	const struct timespec pause = {0, LOOK_NS};
	int r = 1;

	for (uint64_t ns = 0; (r = is_there(c, id, e)) > 0; ns += LOOK_NS) {
		if (ns / 1000000000u >= seconds)
			return err_set(
				e, ETIMEDOUT,
				"the guest has not let go of %s in %u seconds: does it use "
				"it (is it mounted there), or does it not listen? It goes when "
				"the guest lets go of it, or starts anew; --force pulls it out",
				id, seconds);
		nanosleep(&pause, NULL);
	}
	return r;
}

static int cmd_detach(const void *opts, int words, char **word)
{
	const struct unplug_opts *o = opts;
	const struct detach_args args = {.id = word[1], .force = o->force};
	struct api_client c;
	struct err err = {0};
	int r = connect_to(&c, word[0], &err);

	if (r < 0)
		return vm_trouble(word[0], &err);
	r = api_call(&c, &control_methods[METHOD_DETACH], &args, NULL, &err);
	if (r == 0)
		r = wait_gone(&c, word[1], o->timeout, &err);
	api_disconnect(&c);
	return r < 0 ? vm_trouble(word[0], &err) : EXIT_DONE;
}

/* --- the table --- */

static const struct option attach_options[] = {
	{"disk", OPT_FILE, offsetof(struct attach_opts, disks), "FILE[,KEY[=VALUE]]...",
	 "A disk, as 'holon run' takes it; virtio alone.", .repeats = true},
	{"net", OPT_TEXT, offsetof(struct attach_opts, nets), "KIND[,KEY[=VALUE]]...",
	 "A network card, as 'holon run' takes it.", .repeats = true},
	{0}};
static const struct attach_opts attach_defaults = {0};

const struct command attach_command = {
	.name = "attach",
	.words = "NAME",
	.summary = "Plug disks and network cards into a VM that runs",
	.text = "Prints their ids, by which 'holon detach' takes them out again.\n",
	.min_words = 1,
	.max_words = 1,
	.complete = WORDS_VMS,
	.option = attach_options,
	.defaults = &attach_defaults,
	.opts_size = sizeof attach_defaults,
	.check = attach_check,
	.run = cmd_attach,
};

static const struct option unplug_options[] = {
	{"timeout", OPT_NUMBER, offsetof(struct unplug_opts, timeout), "SECONDS",
	 "How long to wait for the guest to let go of it. Default: 30.", .max = 86400},
	{"force", OPT_FLAG, offsetof(struct unplug_opts, force), NULL,
	 "Do not ask the guest: pull it out. What it had not written yet is lost."},
	{0}};
static const struct unplug_opts unplug_defaults = {.timeout = 30};

const struct command detach_command = {
	.name = "detach",
	.words = "NAME ID",
	.summary = "Take a disk or a network card out of a VM that runs",
	.text = "'holon inspect' names them. The guest is asked to let go of the device; a disk that is\n"
		"mounted there should be unmounted before.\n",
	.min_words = 2,
	.max_words = 2,
	.complete = WORDS_VMS,
	.option = unplug_options,
	.defaults = &unplug_defaults,
	.opts_size = sizeof unplug_defaults,
	.run = cmd_detach,
};
