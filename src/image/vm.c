/* vm.json: {"image": DIGEST, "id": random, "seed": digest of what the last seed said,
 * "generation": how many different seeds there were}. It is written before the disk, so that
 * the image cannot go away under a disk that is being made. */
#include "image/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/auto.h"
#include "image/store_priv.h"

static int random_id(char to[33], struct err *e)
{
	uint8_t bytes[16];

	if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
		return err_sys(e, errno, "random numbers");
	for (unsigned i = 0; i < 16; i++)
		sprintf(to + 2 * i, "%02x", bytes[i]);
	return 0;
}

static int make_disk(struct block_ctx *c, const char *file, const char *backing, const char *format,
		     struct err *e)
{
	const struct block_opts o = {
		.file = backing, .format = format, .read_only = true, .no_lock = true};
	struct block_create_opts create = {
		.file = file, .format = "qcow2", .backing_file = backing, .lazy_refcounts = true};
	struct block *b;
	int r = block_open(&b, c, &o, e);

	if (r < 0)
		return r;
	create.size = block_size(b);
	create.backing_format = block_format(b);
	r = block_create(c, &create, e);
	block_close(b, NULL);
	return r;
}

static bool vm_file(const struct store *st, const char *name, const char *file, char *to,
		    size_t len)
{
	return store_path(st, to, len, "vms/%s/%s", name, file);
}

/* --- a VM that stays --- */

static int check_image_there(const struct store *st, const char *name, struct err *e)
{
	char json[PATH_MAX / 2], image[PATH_MAX / 2];
	json_t *vm;
	const char *digest;
	bool gone = false;

	if (!vm_file(st, name, "vm.json", json, sizeof json))
		return err_set(e, ENAMETOOLONG, "VM '%s'", name);
	vm = json_load_file(json, 0, NULL);
	digest = json_string_value(json_object_get(vm, "image"));
	if (digest && store_path(st, image, sizeof image, "images/sha256/%s.qcow2", digest))
		gone = access(image, F_OK) < 0;
	json_decref(vm);
	return gone ? err_set(e, ENOENT,
			      "VM '%s': the image that its disk is based on was removed; --fresh "
			      "makes a new disk",
			      name)
		    : 0;
}

static int make_vm(struct vm_place *v, const struct store *st, struct block_ctx *c,
		   const struct vm_wish *w, struct err *e)
{
	char dir[PATH_MAX / 2], json[PATH_MAX / 2], temp[PATH_MAX / 2 + 8], id[33];
	json_t *vm;
	int r = random_id(id, e);

	if (r < 0)
		return r;
	if (!vm_file(st, w->name, "vm.json", json, sizeof json) ||
	    !store_path(st, dir, sizeof dir, "vms/%s", w->name))
		return err_set(e, ENAMETOOLONG, "VM '%s'", w->name);
	if ((r = make_dirs(dir, e)) < 0)
		return r;
	vm = json_pack("{s:s, s:s, s:i}", "image", w->image->digest, "id", id, "generation", 0);
	r = vm ? write_json(json, vm, e) : err_set(e, ENOMEM, "out of memory");
	json_decref(vm);
	if (r < 0)
		return r;
	snprintf(temp, sizeof temp, "%s.new", v->disk);
	unlink(temp);
	if ((r = make_disk(c, temp, w->image->file, "qcow2", e)) < 0)
		return r;
	if (rename(temp, v->disk) < 0)
		return err_sys(e, errno, "VM '%s'", w->name);
	v->made = true;
	return 0;
}

/* The disk of a VM that runs is locked: it must not be replaced. */
static int check_idle(const struct vm_place *v, struct block_ctx *c, const char *name,
		      struct err *e)
{
	const struct block_opts o = {.file = v->disk, .format = "qcow2", .no_backing = true};
	struct block *b;
	int r = block_open(&b, c, &o, e);

	if (r < 0)
		return err_wrap(e, "VM '%s'", name);
	return block_close(b, e);
}

static int open_vm(struct vm_place *v, const struct store *st, struct block_ctx *c,
		   const struct vm_wish *w, struct err *e)
{
	int r;

	if ((r = store_check_name("VM", w->name, e)) < 0)
		return r;
	if (!vm_file(st, w->name, "disk.qcow2", v->disk, sizeof v->disk))
		return err_set(e, ENAMETOOLONG, "VM '%s'", w->name);
	if (access(v->disk, F_OK) < 0)
		return make_vm(v, st, c, w, e);
	if (w->fresh) {
		r = check_idle(v, c, w->name, e);
		return r < 0 ? r : make_vm(v, st, c, w, e);
	}
	return check_image_there(st, w->name, e);
}

/* --- a VM for once --- */

int vm_open_over(struct vm_place *out, const struct store *st, struct block_ctx *c,
		 const char *disk, const char *format, struct err *e)
{
	struct vm_place v = {.made = true, .work_lock = -1};
	AUTO_FREE char *real = realpath(disk, NULL);
	int r;

	if (!real)
		return err_sys(e, errno, "disk '%s'", disk);
	if ((r = store_work_new(st, v.work, &v.work_lock, e)) < 0)
		return r;
	if (snprintf(v.disk, sizeof v.disk, "%s/disk.qcow2", v.work) >= (int)sizeof v.disk)
		r = err_set(e, ENAMETOOLONG, "'%s'", v.work);
	else if ((r = random_id(v.instance_id, e)) == 0)
		r = make_disk(c, v.disk, real, format, e);
	if (r < 0)
		vm_done(&v);
	else
		*out = v;
	return r;
}

int vm_open(struct vm_place *out, const struct store *st, struct block_ctx *c,
	    const struct vm_wish *w, struct err *e)
{
	struct vm_place v = {.work_lock = -1};
	AUTO_CLOSE int hold = -1;
	int r = store_hold(st, &hold, e);

	if (r < 0)
		return r;
	if (w->ephemeral) {
		/* store_work_new takes the lock itself. What it is based on is in use as long
		 * as the file is open, wherever it stands. */
		close(hold);
		hold = -1;
		return vm_open_over(out, st, c, w->image->file, "qcow2", e);
	}
	r = open_vm(&v, st, c, w, e);
	if (r == 0)
		*out = v;
	return r;
}

void vm_done(struct vm_place *v)
{
	if (*v->work)
		store_work_free(v->work, v->work_lock);
	*v = (struct vm_place){.work_lock = -1};
}

/* --- who the guest is --- */

static void digest_seed(const struct seed_opts *o, const char *id, char to[DIGEST_LEN + 1])
{
	char data[DIGEST_LEN + 1] = "";
	AUTO_FREE char *text = NULL;

	if (o->user_data) {
		AUTO_FREE char *copy = strndup(o->user_data, o->user_data_len);

		digest_text(copy ? copy : "", data);
	}
	if (asprintf(&text, "%s\n%s\n%s\n%s\n%s\n%s", id, o->hostname ? o->hostname : "",
		     o->user ? o->user : "", o->ssh_keys ? o->ssh_keys : "",
		     o->password ? o->password : "", data) < 0)
		text = NULL;
	digest_text(text ? text : "", to);
}

int vm_identify(struct vm_place *v, const struct store *st, const char *name,
		const struct seed_opts *o, struct err *e)
{
	char path[PATH_MAX / 2], now[DIGEST_LEN + 1];
	const char *id, *before;
	json_t *vm;
	json_int_t generation;
	int r = 0;

	if (*v->work)
		return 0;
	if (!vm_file(st, name, "vm.json", path, sizeof path))
		return err_set(e, ENAMETOOLONG, "VM '%s'", name);
	vm = json_load_file(path, 0, NULL);
	id = json_string_value(json_object_get(vm, "id"));
	if (!id || strlen(id) != 32) {
		json_decref(vm);
		return err_set(e, EBADMSG, "'%s' is damaged", path);
	}
	digest_seed(o, id, now);
	before = json_string_value(json_object_get(vm, "seed"));
	generation = json_integer_value(json_object_get(vm, "generation"));
	if (!before || strcmp(before, now) != 0) {
		json_object_set_new(vm, "seed", json_string(now));
		json_object_set_new(vm, "generation", json_integer(++generation));
		r = write_json(path, vm, e);
	}
	snprintf(v->instance_id, sizeof v->instance_id, "%s-%lld", id, (long long)generation);
	json_decref(vm);
	return r;
}
