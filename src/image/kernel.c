/* A disk's partitions, of those each ext file system, of those the one with a kernel and the one
 * that is the root. All is looked for by name; nothing of the disk is run or believed beyond
 * what boot/ checks of any kernel. */
#include "image/kernel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/ext.h"

#define KERNEL_BYTES_MAX MIB(256)
#define INITRD_BYTES_MAX GIB(1)
#define VERSION_MAX      128u
#define GRUB_FILE_MAX    16384u

/* A file system of the disk. */
struct part {
	struct disk_source source; /* this part of whole */
	struct disk_source *whole;
	uint64_t offset;
	struct ext *ext;
};

/* Where a kernel is: DIR/vmlinuz-VERSION of a file system. */
struct place {
	struct ext *ext;
	const char *dir; /* "/boot" or "" */
	char version[VERSION_MAX];
};

static int part_read(struct disk_source *s, uint64_t offset, void *to, uint64_t len)
{
	struct part *p = container_of(s, struct part, source);

	return p->whole->read(p->whole, p->offset + offset, to, len);
}

/* --- which kernel --- */

static bool is_version(const char *s)
{
	size_t len = strlen(s);

	return len && len < VERSION_MAX && !strchr(s, '/') && !strstr(s, "rescue");
}

static const char *version_of(const char *name)
{
	const char *slash = strrchr(name, '/');

	name = slash ? slash + 1 : name;
	return strncmp(name, "vmlinuz-", 8) == 0 && is_version(name + 8) ? name + 8 : NULL;
}

static bool newer_name(void *ctx, const char *name)
{
	struct place *p = ctx;
	const char *version = version_of(name);

	if (version && (!*p->version || strverscmp(version, p->version) > 0))
		snprintf(p->version, sizeof p->version, "%s", version);
	return true;
}

static bool kernel_exists(const struct place *p)
{
	char path[VERSION_MAX + 32];

	snprintf(path, sizeof path, "%s/vmlinuz-%s", p->dir, p->version);
	return ext_has(p->ext, path);
}

/* What the distribution's link names, else the newest. */
static bool find_in_dir(struct place *p, const char *link)
{
	char target[256];
	const char *version;

	p->version[0] = 0;
	if (ext_link(p->ext, link, target, sizeof target) && (version = version_of(target))) {
		snprintf(p->version, sizeof p->version, "%s", version);
		if (kernel_exists(p))
			return true;
		p->version[0] = 0;
	}
	return ext_list(p->ext, *p->dir ? p->dir : "/", newer_name, p, NULL) == 0 && *p->version;
}

static bool find_place(struct place *out, struct part *part, unsigned parts)
{
	for (unsigned i = 0; i < parts; i++) {
		struct place in_boot = {.ext = part[i].ext, .dir = "/boot"};
		struct place own = {.ext = part[i].ext, .dir = ""};

		if (find_in_dir(&in_boot, "/vmlinuz") || find_in_dir(&in_boot, "/boot/vmlinuz")) {
			*out = in_boot;
			return true;
		}
		if (find_in_dir(&own, "/vmlinuz")) {
			*out = own;
			return true;
		}
	}
	return false;
}

/* --- its command line --- */

static struct ext *find_root(struct part *part, unsigned parts)
{
	for (unsigned i = 0; i < parts; i++)
		if (ext_has(part[i].ext, "/etc/fstab") || ext_has(part[i].ext, "/etc/os-release"))
			return part[i].ext;
	return NULL;
}

/* The word NAME=... of a command line. */
static bool has_word(const char *line, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = line; (p = strstr(p, word)); p += len)
		if (p == line || p[-1] == ' ')
			return true;
	return false;
}

static void append(char *line, const char *text, size_t len)
{
	size_t used = strlen(line);

	if (len && used + len + 2 < KERNEL_CMDLINE_MAX)
		snprintf(line + used, KERNEL_CMDLINE_MAX - used, "%s%.*s", used ? " " : "",
			 (int)len, text);
}

/* The value of NAME="..." in a file of shell variables, when it is plain text. */
static void append_variable(char *line, const char *file, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = file; (p = strstr(p, name)); p += len) {
		const char *value = p + len + 1;
		char quote = value[-1] == '=' ? *value : 0;
		size_t n;

		if ((p != file && p[-1] != '\n') || (quote != '"' && quote != '\''))
			continue;
		n = strcspn(value + 1, quote == '"' ? "\"\n$`" : "'\n");
		if (value[1 + n] == quote)
			append(line, value + 1, n);
	}
}

static void grub_line(struct ext *root, char *line)
{
	char *file = malloc(GRUB_FILE_MAX);

	if (file && ext_text(root, "/etc/default/grub", file, GRUB_FILE_MAX, NULL) == 0) {
		append_variable(line, file, "GRUB_CMDLINE_LINUX");
		append_variable(line, file, "GRUB_CMDLINE_LINUX_DEFAULT");
	}
	free(file);
}

/* One line, and nothing in it that a terminal would act on. */
static void clean_line(char *line)
{
	size_t len = strcspn(line, "\n");

	line[len] = 0;
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = ' ';
	while (len && line[len - 1] == ' ')
		line[--len] = 0;
}

static void command_line(struct ext *root, char line[KERNEL_CMDLINE_MAX])
{
	char where[64] = "root=UUID=";

	line[0] = 0;
	if (root && ext_text(root, "/etc/kernel/cmdline", line, KERNEL_CMDLINE_MAX, NULL) < 0) {
		line[0] = 0;
		grub_line(root, line);
	}
	clean_line(line);
	if (root && !has_word(line, "root=")) {
		ext_uuid(root, where + strlen(where));
		append(line, where, strlen(where));
		append(line, "ro", 2);
	}
	if (!has_word(line, "console=ttyS0"))
		append(line, "console=ttyS0", 13);
}

/* --- taking it out --- */

static int copy_out(struct ext *x, const char *path, uint64_t max, int *out, struct err *e)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC), r;

	if (fd < 0)
		return err_sys(e, errno, "memory for '%s'", path);
	r = ext_copy(x, path, max, fd, e);
	if (r < 0)
		close(fd);
	else
		*out = fd;
	return r;
}

static int copy_initrd(const struct place *p, int *out, struct err *e)
{
	static const char *const form[][2] = {
		{"initrd.img-", ""}, {"initramfs-", ".img"}, {"initrd-", ""}};
	char path[VERSION_MAX + 48];

	*out = -1;
	for (unsigned i = 0; i < ARRAY_SIZE(form); i++) {
		snprintf(path, sizeof path, "%s/%s%s%s", p->dir, form[i][0], p->version,
			 form[i][1]);
		if (ext_has(p->ext, path))
			return copy_out(p->ext, path, INITRD_BYTES_MAX, out, e);
	}
	return 0;
}

static int take_out(const struct place *p, struct ext *root, struct guest_kernel *out,
		    struct err *e)
{
	struct guest_kernel k = {.kernel_fd = -1, .initrd_fd = -1};
	char path[VERSION_MAX + 32];
	int r;

	snprintf(path, sizeof path, "%s/vmlinuz-%s", p->dir, p->version);
	if ((r = copy_out(p->ext, path, KERNEL_BYTES_MAX, &k.kernel_fd, e)) < 0)
		return r;
	if ((r = copy_initrd(p, &k.initrd_fd, e)) < 0) {
		close(k.kernel_fd);
		return r;
	}
	snprintf(k.name, sizeof k.name, "vmlinuz-%s", p->version);
	command_line(root, k.cmdline);
	*out = k;
	return 0;
}

/* --- */

/* A disk without partitions may be one file system. */
static int read_parts(struct disk_source *s, struct part **out, unsigned *count, struct err *e)
{
	struct partition found[PARTITIONS_MAX];
	struct part *part = calloc(PARTITIONS_MAX, sizeof *part);
	int n = partitions_read(s, found), r = 0;
	unsigned used = 0;

	if (!part)
		return err_set(e, ENOMEM, "out of memory");
	if (n < 0) {
		free(part);
		return err_sys(e, -n, "the disk's partitions");
	}
	if (!n)
		found[n++] = (struct partition){0, s->size};
	for (int i = 0; i < n && r != -ENOMEM; i++) {
		struct part *p = &part[used];

		*p = (struct part){{found[i].len, part_read}, s, found[i].offset, NULL};
		r = ext_open(&p->ext, &p->source, e);
		used += r == 0;
	}
	*out = part;
	*count = used;
	return 0;
}

static void close_parts(struct part *part, unsigned parts)
{
	for (unsigned i = 0; i < parts; i++)
		ext_close(part[i].ext);
	free(part);
}

int kernel_find(struct disk_source *s, struct guest_kernel *out, struct err *e)
{
	struct part *part;
	struct place place;
	unsigned parts;
	int r = read_parts(s, &part, &parts, e);

	if (r < 0)
		return r;
	if (!parts)
		r = err_set(e, ENOENT,
			    "no ext2, ext3 or ext4 file system was found to take a kernel from");
	else if (!find_place(&place, part, parts))
		r = err_set(e, ENOENT, "no kernel was found (/vmlinuz, /boot/vmlinuz-VERSION)");
	else
		r = take_out(&place, find_root(part, parts), out, e);
	close_parts(part, parts);
	return r;
}

bool system_has(struct disk_source *s, const char *path)
{
	struct part *part;
	struct ext *root;
	unsigned parts;
	bool has;

	if (read_parts(s, &part, &parts, NULL) < 0)
		return false;
	root = find_root(part, parts);
	has = root && ext_has(root, path);
	close_parts(part, parts);
	return has;
}
