#include "cli/disk_import.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/print.h"
#include "cli/qemu_img.h"

#define HEAD_LEN  512u
#define INFO_MAX  65536u
#define VDI_MAGIC 64u
#define TEXT_VMDK "# Disk DescriptorFile"

static bool begins(const uint8_t *head, size_t len, size_t at, const char *with, size_t n)
{
	return len >= at + n && !memcmp(head + at, with, n);
}

static const char *probe(const uint8_t *head, size_t len)
{
	if (begins(head, len, 0, "KDMV", 4) || begins(head, len, 0, "COWD", 4) ||
	    begins(head, len, 0, TEXT_VMDK, strlen(TEXT_VMDK)))
		return "vmdk";
	if (begins(head, len, 0, "conectix", 8))
		return "vpc";
	if (begins(head, len, 0, "vhdxfile", 8))
		return "vhdx";
	if (begins(head, len, VDI_MAGIC, "\x7f\x10\xda\xbe", 4))
		return "vdi";
	return NULL;
}

const char *foreign_of(const char *file, const char *named)
{
	uint8_t head[HEAD_LEN];
	struct stat st;
	ssize_t n;

	if (named)
		return strcmp(named, "raw") && strcmp(named, "qcow2") ? named : NULL;
	/* A pipe would lose what is read of it. */
	if (stat(file, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		return NULL;
	AUTO_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	n = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);
	return n < 0 ? NULL : probe(head, (size_t)n);
}

/* An absolute path is neither taken for an option nor for a protocol's name. */
struct where {
	char *path, *dir;
};

static int locate(struct where *w, const char *file, struct err *e)
{
	*w = (struct where){.path = realpath(file, NULL)};
	if (!w->path)
		return err_sys(e, errno, "'%s'", file);
	w->dir = strndup(w->path, (size_t)(strrchr(w->path, '/') - w->path) + 1);
	return w->dir ? 0 : err_sys(e, ENOMEM, "'%s'", file);
}

static void where_done(struct where *w)
{
	free(w->path);
	free(w->dir);
}

/* --- info --- */

struct text {
	size_t len;
	char bytes[INFO_MAX];
};

static void collect(void *ctx, const char *text, size_t len)
{
	struct text *t = ctx;
	size_t n = len < INFO_MAX - t->len ? len : INFO_MAX - t->len;

	memcpy(t->bytes + t->len, text, n);
	t->len += n;
}

static uint64_t number(const json_t *j, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(j, key));
}

static void print_info(const json_t *j, const char *file, const char *format)
{
	uint64_t virtual_size = number(j, "virtual-size"), cluster = number(j, "cluster-size");
	char size[SIZE_TEXT_LEN];

	printf("image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\n", file, format,
	       size_text(size, virtual_size), (unsigned long long)virtual_size);
	printf("disk size: %s\n", size_text(size, number(j, "actual-size")));
	if (cluster)
		printf("cluster_size: %llu\n", (unsigned long long)cluster);
}

int import_info(struct disk_job *j, const char *file, const char *format, bool json)
{
	AUTO_FREE struct text *t = calloc(1, sizeof *t);
	struct where w = {0};
	json_t *info = NULL;
	int r = t ? locate(&w, file, &j->err) : err_sys(&j->err, ENOMEM, "'%s'", file);

	if (r == 0)
		r = qemu_img_run(&(struct qemu_img){.argv = {"info", "-f", format, "--output",
							     "json", w.path},
						    .read_dir = w.dir,
						    .stop_fd = j->signals.fd,
						    .output = collect,
						    .ctx = t},
				 &j->err);
	where_done(&w);
	if (r < 0)
		return err_wrap(&j->err, "'%s'", file);
	info = json_loadb(t->bytes, t->len, 0, NULL);
	if (!json_is_object(info)) {
		json_decref(info);
		return err_set(&j->err, EIO, "'%s': qemu-img said nothing of use", file);
	}
	json_object_set_new(info, "filename", json_string(file));
	if (json)
		return print_json(info) ? err_set(&j->err, EIO, "nothing was printed") : 0;
	print_info(info, file, format);
	json_decref(info);
	return 0;
}

/* --- contents --- */

/* Of "    (12.34/100%)\r", over and over: the last number that is complete. */
static void follow(void *ctx, const char *text, size_t len)
{
	struct disk_job *j = ctx;

	for (size_t i = len; i-- > 0;)
		if (text[i] == '(') {
			char number[16] = "";
			double percent;

			memcpy(number, text + i + 1, len - i - 1 < 15 ? len - i - 1 : 15);
			if (sscanf(number, "%lf/", &percent) == 1 && percent >= 0 && percent <= 100)
				j->done = (uint64_t)(percent / 100 * (double)j->total);
			break;
		}
	progress_step(&j->progress, j->done, j->total);
}

int import_raw(struct disk_job *j, const char *file, const char *format, const char *to,
	       bool progress)
{
	struct where w = {0};
	AUTO_FREE char *target = realpath(to, NULL);
	struct stat st;
	int r = locate(&w, file, &j->err);

	if (r == 0 && (!target || stat(file, &st) < 0))
		r = err_sys(&j->err, errno, "'%s'", to);
	if (r == 0) {
		j->done = 0;
		j->total = (uint64_t)st.st_size;
		progress_begin(&j->progress, progress);
		r = qemu_img_run(&(struct qemu_img){.argv = {"convert", "-p", "-f", format, "-O",
							     "raw", w.path, target},
						    .read_dir = w.dir,
						    .write_file = target,
						    .stop_fd = j->signals.fd,
						    .output = follow,
						    .ctx = j},
				 &j->err);
		progress_end(&j->progress, j->total, j->total);
	}
	where_done(&w);
	return r < 0 ? err_wrap(&j->err, "'%s'", file) : 0;
}
