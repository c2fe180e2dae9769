/* In this order: the image (built if need be), the VM's disk, the seed; then, whenever the
 * machine asks, the kernel. The disk is opened a second time for that, read-only and beside the
 * machine's own use of it: no vCPU runs then, and a guest that reboots has flushed. */
#include "cli/run_system.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "cli/image.h"
#include "image/bootable.h"

#define TEXT_FILE_MAX MIB(1)

/* --- what is on the disk --- */

struct block_source {
	struct disk_source source;
	struct block *block;
};

static int read_block(struct disk_source *d, uint64_t offset, void *to, uint64_t len)
{
	return block_read(container_of(d, struct block_source, source)->block, offset, to, len);
}

/* Calls look(disk, arg) with what is on the VM's disk now. */
static int look_on_disk(const struct run_system *s,
			int (*look)(struct disk_source *d, void *arg, struct err *e), void *arg,
			struct err *e)
{
	const struct block_opts o = {
		.file = s->disk, .format = s->format, .read_only = true, .no_lock = true};
	struct block_source from = {.source.read = read_block};
	struct block_ctx *c;
	int r = block_ctx_new(&c, NULL, BLOCK_ENGINE_AUTO, e);

	if (r < 0)
		return r;
	if ((r = block_open(&from.block, c, &o, e)) == 0) {
		from.source.size = block_size(from.block);
		r = look(&from.source, arg, e);
		block_close(from.block, NULL);
	}
	block_ctx_free(c);
	return r < 0 ? err_wrap(e, "disk '%s'", s->disk) : r;
}

/* --- the seed's ingredients --- */

static int read_file(const char *path, char **to, uint32_t *len, struct err *e)
{
	AUTO_FCLOSE FILE *f = fopen(path, "re");
	char *text = malloc(TEXT_FILE_MAX + 1);
	size_t n;

	if (!f || !text) {
		free(text);
		return err_sys(e, f ? ENOMEM : errno, "'%s'", path);
	}
	n = fread(text, 1, TEXT_FILE_MAX + 1, f);
	if (ferror(f) || n > TEXT_FILE_MAX) {
		free(text);
		return ferror(f) ? err_set(e, EIO, "'%s' cannot be read", path)
				 : err_set(e, EFBIG, "'%s': more than a mebibyte", path);
	}
	text[n] = 0;
	*to = text;
	*len = (uint32_t)n;
	return 0;
}

static int append_file(char **all, const char *path, struct err *e)
{
	AUTO_FREE char *old = *all, *text = NULL;
	uint32_t len;
	int r = read_file(path, &text, &len, e);

	*all = NULL;
	if (r == 0 && asprintf(all, "%s%s\n", old ? old : "", text) < 0) {
		*all = NULL;
		r = err_set(e, ENOMEM, "out of memory");
	}
	return r;
}

/* Those that were named, else those the user has. */
static int read_keys(const struct run_opts *o, char **keys, struct err *e)
{
	const char *home = getenv("HOME");
	char pattern[512];
	glob_t found = {0};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < o->ssh_key.n; i++)
		r = append_file(keys, o->ssh_key.value[i], e);
	if (r < 0 || o->ssh_key.n || !home)
		return r;
	snprintf(pattern, sizeof pattern, "%s/.ssh/id_*.pub", home);
	if (glob(pattern, 0, NULL, &found) == 0)
		for (size_t i = 0; r == 0 && i < found.gl_pathc; i++)
			r = append_file(keys, found.gl_pathv[i], e);
	globfree(&found);
	return r;
}

/* The caller's own name, as ssh would use it; "debian" for root. */
static const char *default_user(void)
{
	const struct passwd *p = getpwuid(geteuid());

	return p && p->pw_uid ? p->pw_name : "debian";
}

static bool seed_asked_for(const struct run_opts *o)
{
	return o->user || o->ssh_key.n || o->password || o->hostname || o->user_data;
}

int run_system_check(const struct run_opts *o, bool has_word, struct err *e)
{
	if (!has_word && (seed_asked_for(o) || o->ephemeral || o->fresh))
		return err_set(e, EINVAL,
			       "--user, --ssh-key, --password, --hostname, --user-data, "
			       "--ephemeral and --fresh go with an image or a disk");
	if (o->user_data && (o->user || o->ssh_key.n || o->password))
		return err_set(e, EINVAL,
			       "--user-data is passed on as it is, so it goes without --user, "
			       "--ssh-key and --password");
	if (o->ephemeral && o->fresh)
		return err_set(e, EINVAL, "--ephemeral is always fresh");
	return 0;
}

static int has_finished(struct disk_source *d, void *arg, struct err *e)
{
	return system_has(d, arg);
}

/* cloud-init says on the disk that it has done all that this seed says. Without a seed it does
 * not run at all, and that is half of a boot's time. */
static bool seed_was_used(const struct run_system *s)
{
	char path[160];

	if (s->vm.made)
		return false;
	snprintf(path, sizeof path, "/var/lib/cloud/instances/%s/boot-finished", s->vm.instance_id);
	return look_on_disk(s, has_finished, path, NULL) > 0;
}

/* The VM's name, as far as it can be a host's. */
static void default_hostname(const char *name, char to[65])
{
	snprintf(to, 65, "%s", name);
	for (char *p = to; *p; p++)
		if (*p == '_')
			*p = '-';
}

static int make_seed(struct run_system *s, bool in_store, struct err *e)
{
	const struct run_opts *o = s->opts;
	AUTO_FREE char *keys = NULL, *data = NULL;
	struct seed_opts seed = {.hostname = o->hostname, .password = o->password};
	char hostname[65];
	int r;

	default_hostname(s->name, hostname);
	if (!seed.hostname)
		seed.hostname = hostname;
	if (o->user_data) {
		if ((r = read_file(o->user_data, &data, &seed.user_data_len, e)) < 0)
			return r;
		seed.user_data = data;
	} else {
		if ((r = read_keys(o, &keys, e)) < 0)
			return r;
		seed.user = o->user ? o->user : default_user();
		seed.ssh_keys = keys;
		snprintf(s->user, sizeof s->user, "%s", seed.user);
	}
	if ((r = seed_check(&seed, e)) < 0 ||
	    (in_store && (r = vm_identify(&s->vm, &s->store, s->name, &seed, e)) < 0))
		return r;
	seed.instance_id = s->vm.instance_id;
	if (in_store && !o->user_data && seed_was_used(s))
		return 0;
	if ((r = seed_make(&seed, &s->seed, e)) < 0)
		return r;
	snprintf(s->seed_path, sizeof s->seed_path, "/proc/self/fd/%d", s->seed);
	return 0;
}

/* --- the disk --- */

static bool is_disk(const char *word)
{
	struct stat st;

	return strchr(word, '/') || strstr(word, ".qcow2") || strstr(word, ".img") ||
	       strstr(word, ".raw") ||
	       (store_check_name("image", word, NULL) < 0 && stat(word, &st) == 0);
}

/* -ENOENT of "debian" is a wish. */
static int find_image(struct run_system *s, const char *word, struct store_image *i, struct err *e)
{
	const struct image_build_opts build = {
		.suite = "bookworm", .size = GIB(4), .name = "debian"};
	int r = store_find(&s->store, word, i, e);

	if (r != -ENOENT)
		return r;
	if (strcmp(word, "debian") != 0)
		return err_set(e, ENOENT,
			       "'%s' is neither an image (see holon image ls) nor a disk", word);
	r = image_build(&s->store, &build, e);
	return r < 0 ? r : store_find(&s->store, word, i, e);
}

static int open_image(struct run_system *s, const char *word, struct block_ctx *c, struct err *e)
{
	struct store_image image;
	struct vm_wish wish = {
		.image = &image, .fresh = s->opts->fresh, .ephemeral = s->opts->ephemeral};
	int r = find_image(s, word, &image, e);

	if (r < 0)
		return r;
	s->name = wish.name = s->opts->name ? s->opts->name : word;
	r = vm_open(&s->vm, &s->store, c, &wish, e);
	store_image_done(&image);
	if (r < 0)
		return r;
	s->disk = s->vm.disk;
	s->format = "qcow2";
	return 0;
}

/* A name for a disk: its file's, without what follows a dot. */
static const char *name_of_disk(struct run_system *s, const char *word)
{
	const char *slash = strrchr(word, '/');
	size_t len;

	if (s->opts->name)
		return s->opts->name;
	word = slash && slash[1] ? slash + 1 : word;
	len = strcspn(word, ".");
	snprintf(s->own_name, sizeof s->own_name, "%.*s", (int)len, word);
	return len ? s->own_name : "holon";
}

static int open_disk(struct run_system *s, const char *word, struct block_ctx *c, struct err *e)
{
	int r;

	s->name = name_of_disk(s, word);
	if (s->opts->fresh)
		return err_set(e, EINVAL, "--fresh goes with an image, not with a disk");
	if (s->opts->ephemeral) {
		if ((r = vm_open_over(&s->vm, &s->store, c, word, NULL, e)) < 0)
			return r;
		s->disk = s->vm.disk;
		s->format = "qcow2";
		return 0;
	}
	s->disk = word;
	digest_text(word, s->vm.instance_id);
	return 0;
}

/* --- a container's image --- */

static int check_container(const struct run_opts *o, struct err *e)
{
	if (o->ssh_key.n || o->password || o->user_data || o->firmware || o->initrd)
		return err_set(e, EINVAL,
			       "--ssh-key, --password, --user-data, --firmware and "
			       "--initrd do not go with oci:");
	return 0;
}

/* Without a name of its own it is for once, as containers are. */
static int open_container(struct run_system *s, int words, char **word, struct block_ctx *c,
			  struct err *e)
{
	const struct run_opts *o = s->opts;
	struct store_image image;
	struct vm_wish wish = {
		.image = &image, .fresh = o->fresh, .ephemeral = o->ephemeral || !o->name};
	char hostname[65];
	int r = check_container(o, e);

	if (r < 0 || (r = run_oci_image(&s->store, word[0], &image, e)) < 0)
		return r;
	s->oci = true;
	snprintf(s->own_name, sizeof s->own_name, "%s", *image.name ? image.name : "oci");
	s->name = wish.name = o->name ? o->name : s->own_name;
	default_hostname(s->name, hostname);
	r = vm_open(&s->vm, &s->store, c, &wish, e);
	if (r == 0)
		r = run_oci_init(&s->container, o, &image, o->hostname ? o->hostname : hostname,
				 !wish.ephemeral, word + 1, (unsigned)words - 1, e);
	store_image_done(&image);
	s->disk = s->vm.disk;
	s->format = "qcow2";
	return r;
}

/* --- the kernel --- */

static int find_kernel(struct disk_source *d, void *kernel, struct err *e)
{
	return kernel_find(d, kernel, e);
}

bool run_system_has_kernel(const struct run_system *s, struct err *why)
{
	struct guest_kernel found;

	if (s->oci)
		return true;
	if (look_on_disk(s, find_kernel, &found, why) < 0)
		return false;
	close(found.kernel_fd);
	if (found.initrd_fd >= 0)
		close(found.initrd_fd);
	return true;
}

static int find_boot(struct disk_source *d, void *arg, struct err *e)
{
	int r = bootable_by(d);

	return r < 0 ? err_sys(e, -r, "read") : r;
}

int run_system_bootable(const struct run_system *s, struct err *e)
{
	return look_on_disk(s, find_boot, NULL, e);
}

static void close_kernel(struct run_system *s)
{
	if (s->kernel.kernel_fd >= 0)
		close(s->kernel.kernel_fd);
	if (s->kernel.initrd_fd >= 0)
		close(s->kernel.initrd_fd);
	s->kernel.kernel_fd = s->kernel.initrd_fd = -1;
}

/* At a reboot the disk may be in a state in which nothing is found; the kernel of before is
 * then better than none. */
static int get_kernel(struct kernel_source *source, const char **kernel, const char **initrd,
		      const char **append, struct err *e)
{
	struct run_system *s = container_of(source, struct run_system, source);
	struct guest_kernel found;
	int r;

	if (s->oci) {
		*kernel = s->container.kernel;
		*initrd = s->container.initrd_path;
		*append = s->container.append;
		return 0;
	}
	r = look_on_disk(s, find_kernel, &found, e);

	if (r < 0 && s->kernel.kernel_fd < 0)
		return r;
	if (r < 0) {
		log_warn("%s: %s; starting the kernel of before", s->name, e->text);
	} else {
		close_kernel(s);
		s->kernel = found;
		log_info("%s: %s from the disk", s->name, found.name);
	}
	snprintf(s->kernel_path, sizeof s->kernel_path, "/proc/self/fd/%d", s->kernel.kernel_fd);
	snprintf(s->initrd_path, sizeof s->initrd_path, "/proc/self/fd/%d", s->kernel.initrd_fd);
	snprintf(s->append, sizeof s->append, "%s%s%s", s->kernel.cmdline,
		 s->opts->append ? " " : "", s->opts->append ? s->opts->append : "");
	*kernel = s->kernel_path;
	*initrd = s->opts->initrd            ? s->opts->initrd
		  : s->kernel.initrd_fd >= 0 ? s->initrd_path
					     : NULL;
	*append = s->append;
	return 0;
}

/* --- */

int run_system_disks(const struct run_system *s, struct machine_disk disk[MACHINE_DISKS_MAX],
		     unsigned *n, struct err *e)
{
	unsigned more = s->seed >= 0 ? 2 : 1;

	if (*n > MACHINE_DISKS_MAX - more)
		return err_set(e, EINVAL, "more than %u disks", MACHINE_DISKS_MAX - more);
	memmove(disk + 1, disk, *n * sizeof *disk);
	disk[0] = (struct machine_disk){
		.image = {.file = s->disk, .format = s->format, .discard = true}};
	if (s->seed >= 0)
		disk[*n + 1] = (struct machine_disk){.image = {.file = s->seed_path,
							       .format = "raw",
							       .read_only = true,
							       .no_lock = true,
							       .cache = BLOCK_CACHE_WRITEBACK}};
	*n += more;
	return 0;
}

static int open_all(struct run_system *s, int words, char **all, struct err *e)
{
	const char *word = all[0];
	bool oci = run_oci_is(word), disk = !oci && is_disk(word);
	struct block_ctx *c;
	int r = store_open(&s->store, NULL, e);

	if (r < 0 || (r = block_ctx_new(&c, NULL, BLOCK_ENGINE_AUTO, e)) < 0)
		return r;
	r = oci ? open_container(s, words, all, c, e)
		: (disk ? open_disk : open_image)(s, word, c, e);
	block_ctx_free(c);
	/* A disk that somebody installed is not asked to take a user unless he says so. */
	if (r == 0 && !oci && (!disk || seed_asked_for(s->opts)))
		r = make_seed(s, !disk, e);
	return r;
}

int run_system_init(struct run_system *s, const struct run_opts *o, int words, char **word,
		    struct err *e)
{
	int r;

	*s = (struct run_system){.opts = o, .seed = -1, .source.get = get_kernel};
	s->vm.work_lock = -1;
	s->kernel.kernel_fd = s->kernel.initrd_fd = -1;
	s->container.initrd = -1;
	r = open_all(s, words, word, e);
	if (r < 0)
		run_system_done(s);
	return r;
}

void run_system_done(struct run_system *s)
{
	close_kernel(s);
	run_oci_done(&s->container);
	if (s->seed >= 0)
		close(s->seed);
	s->seed = -1;
	vm_done(&s->vm);
}
