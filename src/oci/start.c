#include "oci/start.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/init.h"
#include "base/auto.h"

#define FILE_MAX    MIB(64) /* the agent, a module */
#define ORDER_MAX   MIB(4)
#define MODULES_MAX 64u

/* What a guest's first process may want; a kernel that has one built in has no file of it. */
static const char *const wanted[] = {"virtio_pci",
				     "virtio_blk",
				     "virtio_net",
				     "virtio_console",
				     "virtio_balloon",
				     "virtio_rng",
				     "vmw_vsock_virtio_transport",
				     "button",
				     "evdev"};

struct archive {
	FILE *f;
	struct err *e;
	unsigned number;
	char dir[PATH_MAX / 2];    /* lib/modules/VERSION; empty: there are none */
	char *order;               /* modules.order: the files, a line each */
	char *module[MODULES_MAX]; /* names that are in already */
	unsigned modules;
	FILE *run; /* the list for the first process */
};

/* --- cpio (newc) --- */

static void entry(struct archive *a, const char *name, unsigned mode, const void *bytes, size_t len)
{
	static const char zeros[4];

	fprintf(a->f, "070701%08X%08X%08X%08X%08X%08X%08zX%08X%08X%08X%08X%08zX%08X", ++a->number,
		mode, 0, 0, 1, 0, len, 0, 0, 0, 0, strlen(name) + 1, 0);
	fwrite(name, 1, strlen(name) + 1, a->f);
	fwrite(zeros, 1, (4 - (110 + strlen(name) + 1) % 4) % 4, a->f);
	fwrite(bytes, 1, len, a->f);
	fwrite(zeros, 1, (4 - len % 4) % 4, a->f);
}

static int read_file(const char *path, uint64_t max, char **to, size_t *len, struct err *e)
{
	AUTO_FCLOSE FILE *f = fopen(path, "re");
	struct stat st;

	if (!f || fstat(fileno(f), &st) < 0)
		return err_sys(e, errno, "'%s'", path);
	if ((uint64_t)st.st_size > max)
		return err_set(e, EFBIG, "'%s' is too large", path);
	*to = malloc((size_t)st.st_size + 1);
	if (!*to)
		return err_set(e, ENOMEM, "out of memory");
	*len = fread(*to, 1, (size_t)st.st_size, f);
	(*to)[*len] = 0;
	return 0;
}

/* --- modules --- */

static bool same_name(const char *a, size_t len, const char *b)
{
	for (size_t i = 0; i < len; i++)
		if ((a[i] == '-' ? '_' : a[i]) != (b[i] == '-' ? '_' : b[i]) || !b[i])
			return false;
	return !b[len];
}

/* The line of a module in modules.order; NULL: it is built in, or not there. */
static const char *find_line(const struct archive *a, const char *name, size_t *len)
{
	for (const char *line = a->order; line && *line;) {
		size_t all = strcspn(line, "\n"), base = all;

		while (base && line[base - 1] != '/')
			base--;
		if (all - base > 3 && !memcmp(line + all - 3, ".ko", 3) &&
		    same_name(line + base, all - base - 3, name)) {
			*len = all;
			return line;
		}
		line += all + (line[all] == '\n');
	}
	return NULL;
}

static bool has_module(const struct archive *a, const char *name)
{
	for (unsigned i = 0; i < a->modules; i++)
		if (same_name(a->module[i], strlen(a->module[i]), name))
			return true;
	return false;
}

static int add_module(struct archive *a, const char *name);

/* "depends=a,b" of its .modinfo: those come first. */
static int add_depends(struct archive *a, const char *bytes, size_t len)
{
	const char *at = memmem(bytes, len, "\0depends=", 9);
	char names[1024], *rest = names, *one;
	int r = 0;

	if (!at)
		return 0;
	snprintf(names, sizeof names, "%.*s", (int)strnlen(at + 9, len - (size_t)(at + 9 - bytes)),
		 at + 9);
	while (r == 0 && (one = strsep(&rest, ",")))
		if (*one)
			r = add_module(a, one);
	return r;
}

static int add_module(struct archive *a, const char *name)
{
	char path[PATH_MAX], in[300];
	AUTO_FREE char *bytes = NULL;
	size_t line_len, len;
	const char *line = find_line(a, name, &line_len);
	int r;

	if (!line || has_module(a, name))
		return 0;
	if (a->modules == MODULES_MAX || !(a->module[a->modules] = strdup(name)))
		return err_set(a->e, E2BIG, "the kernel's modules need too many others");
	a->modules++;
	snprintf(path, sizeof path, "%s/%.*s", a->dir, (int)line_len, line);
	snprintf(in, sizeof in, "modules/%.200s.ko", name);
	if ((r = read_file(path, FILE_MAX, &bytes, &len, a->e)) < 0 ||
	    (r = add_depends(a, bytes, len)) < 0)
		return r;
	entry(a, in, S_IFREG | 0644, bytes, len);
	fprintf(a->run, "%c/%s%c", INIT_MODULE, in, 0);
	return 0;
}

static int add_modules(struct archive *a, const char *root)
{
	char path[PATH_MAX];
	glob_t found = {0};
	size_t len;
	int r = 0;

	if (!root)
		return 0;
	snprintf(path, sizeof path, "%s/lib/modules/*/modules.order", root);
	if (glob(path, 0, NULL, &found) != 0 || found.gl_pathc == 0) {
		globfree(&found);
		return err_set(a->e, ENOENT, "'%s' has no kernel modules", root);
	}
	r = read_file(found.gl_pathv[0], ORDER_MAX, &a->order, &len, a->e);
	snprintf(a->dir, sizeof a->dir, "%.*s", (int)(strlen(found.gl_pathv[0]) - 14),
		 found.gl_pathv[0]);
	globfree(&found);
	entry(a, "modules", S_IFDIR | 0755, NULL, 0);
	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(wanted); i++)
		r = add_module(a, wanted[i]);
	return r;
}

/* --- what to do --- */

static void item(struct archive *a, enum init_item kind, const char *text)
{
	if (text)
		fprintf(a->run, "%c%s%c", kind, text, 0);
}

static unsigned items(struct archive *a, enum init_item kind, const json_t *list)
{
	const json_t *t;
	size_t n;

	json_array_foreach(list, n, t) item(a, kind, json_string_value(t));
	return (unsigned)json_array_size(list);
}

/* "SIGTERM", "TERM", "15", "SIGRTMIN+3"; 0: none that is known. */
static int signal_number(const char *text)
{
	const char *name = text && !strncmp(text, "SIG", 3) ? text + 3 : text;

	if (!name)
		return 0;
	if (*name >= '0' && *name <= '9')
		return atoi(name) < NSIG ? atoi(name) : 0;
	if (!strncmp(name, "RTMIN+", 6))
		return atoi(name + 6) < 31 ? 34 + atoi(name + 6) : 0;
	for (int s = 1; s < NSIG; s++) {
		const char *known = sigabbrev_np(s);

		if (known && !strcmp(known, name))
			return s;
	}
	return 0;
}

static const char *text_of(const json_t *config, const char *key)
{
	const char *text = json_string_value(json_object_get(config, key));

	return text && *text ? text : NULL;
}

static int describe(struct archive *a, const struct oci_start *s)
{
	unsigned words = items(a, INIT_ARG, json_object_get(s->config, "Entrypoint"));
	int stop = signal_number(text_of(s->config, "StopSignal"));
	char number[16];

	for (unsigned i = 0; i < s->commands; i++)
		item(a, INIT_ARG, s->command[i]);
	words += s->commands ? s->commands : items(a, INIT_ARG, json_object_get(s->config, "Cmd"));
	if (!words)
		return err_set(a->e, EINVAL,
			       "the image names no command of its own: add '-- COMMAND'");
	items(a, INIT_ENV, json_object_get(s->config, "Env"));
	item(a, INIT_DIR, text_of(s->config, "WorkingDir"));
	item(a, INIT_USER, s->user ? s->user : text_of(s->config, "User"));
	item(a, INIT_HOST, s->hostname);
	item(a, INIT_CONSOLE, s->console);
	snprintf(number, sizeof number, "%d", stop);
	item(a, INIT_SIGNAL, stop ? number : NULL);
	item(a, INIT_TTY, s->tty ? "" : NULL);
	item(a, INIT_KEEP, s->keep ? "" : NULL);
	return 0;
}

static int add_agent(struct archive *a, const char *path)
{
	AUTO_FREE char *bytes = NULL;
	size_t len;
	int r = read_file(path, FILE_MAX, &bytes, &len, a->e);

	if (r == 0)
		entry(a, "init", S_IFREG | 0755, bytes, len);
	return r;
}

static int write_archive(struct archive *a, const struct oci_start *s)
{
	AUTO_FREE char *list = NULL;
	size_t len = 0;
	int r;

	a->run = open_memstream(&list, &len);
	if (!a->run)
		return err_set(a->e, ENOMEM, "out of memory");
	if ((r = add_agent(a, s->agent)) == 0 && (r = add_modules(a, s->kernel_root)) == 0)
		r = describe(a, s);
	if (fclose(a->run) != 0 && r == 0)
		r = err_set(a->e, ENOMEM, "out of memory");
	if (r == 0 && len > INIT_MAX)
		r = err_set(a->e, E2BIG, "the command and its environment are longer than 1 MiB");
	if (r < 0)
		return r;
	entry(a, &INIT_FILE[1], S_IFREG | 0600, list, len);
	entry(a, "TRAILER!!!", 0, NULL, 0);
	return 0;
}

int oci_initramfs(const struct oci_start *s, int *fd, struct err *e)
{
	struct archive a = {.e = e};
	int file = memfd_create("initramfs", MFD_CLOEXEC), r;

	if (file < 0)
		return err_sys(e, errno, "an initramfs");
	a.f = fdopen(dup(file), "w");
	if (!a.f) {
		close(file);
		return err_set(e, ENOMEM, "out of memory");
	}
	r = write_archive(&a, s);
	if (fclose(a.f) != 0 && r == 0)
		r = err_sys(e, errno, "an initramfs");
	for (unsigned i = 0; i < a.modules; i++)
		free(a.module[i]);
	free(a.order);
	if (r < 0)
		close(file);
	else
		*fd = file;
	return r;
}
