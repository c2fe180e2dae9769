#include "boot/boot_priv.h"

#include <errno.h>

static int not_a_kernel(const struct image *f, struct err *e)
{
	return image_fail(f, e, ENOEXEC,
			  "is not a kernel (neither a Linux bzImage, nor an ELF file with a PVH "
			  "entry, nor a multiboot 1 image)");
}

/* An ELF file may carry both headers: PVH is the newer and says more. */
static int load_elf(struct boot_job *j, struct err *e)
{
	struct elf elf;
	uint64_t entry;
	uint32_t header;
	int r = elf_open(&elf, &j->kernel, e);

	if (r < 0)
		return r;
	r = pvh_find(&elf, &j->kernel, &entry, e);
	if (r < 0)
		return r;
	if (r > 0)
		return pvh_load(j, &elf, entry, e);
	r = multiboot_find(&j->kernel, &header, e);
	if (r < 0)
		return r;
	if (r > 0)
		return multiboot_load(j, &elf, header, e);
	return image_fail(
		&j->kernel, e, ENOEXEC,
		"is an ELF file, but has neither a PVH entry note nor a multiboot header");
}

static int load_any(struct boot_job *j, struct err *e)
{
	uint32_t header;
	int r;

	if (bzimage_is(&j->kernel))
		return bzimage_load(j, e);
	if (elf_is(&j->kernel))
		return load_elf(j, e);
	r = multiboot_find(&j->kernel, &header, e);
	if (r > 0)
		return multiboot_load(j, NULL, header, e);
	return r < 0 ? r : not_a_kernel(&j->kernel, e);
}

int boot_load(struct guest_mem *m, const struct boot_config *c, struct x86_state *start,
	      struct err *e)
{
	struct x86_state state = *start;
	struct boot_job j = {
		.m = m, .c = c, .cmdline = c->cmdline ? c->cmdline : "", .start = &state};
	int r;

	if (ram_low_end(m) < EXT_RAM)
		return err_set(e, ENOMEM, "a machine needs at least 1 MiB of memory");
	r = image_open(&j.kernel, "kernel", c->kernel, e);
	if (r < 0)
		return r;
	r = load_any(&j, e);
	image_close(&j.kernel);
	if (r == 0)
		*start = state;
	return r;
}
