/* ram: the guest's RAM as loaders see it: its map for the kernel, and where a file may
 * be put. Below 1 MiB it looks like a PC: 639 KiB of RAM, the extended BIOS data area,
 * the hole for video and option ROMs, ACPI tables at 0xe0000. */
#include "boot/boot_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "chipset/layout.h"

#define PAGE UINT64_C(4096)

gpa_t ram_low_end(const struct guest_mem *m)
{
	const struct mem_region *r;

	return mem_regions(m, &r) ? r[0].gpa + r[0].size : 0;
}

unsigned ram_map(const struct guest_mem *m, struct ram_entry to[RAM_ENTRIES_MAX])
{
	const struct mem_region *r;
	unsigned regions = mem_regions(m, &r);
	gpa_t low = ram_low_end(m);
	unsigned n = 0;

	to[n++] = (struct ram_entry){0, LOW_RAM_END, RAM_USABLE};
	to[n++] = (struct ram_entry){LOW_RAM_END, 0xa0000 - LOW_RAM_END, RAM_RESERVED};
	to[n++] = (struct ram_entry){ACPI_AREA, EXT_RAM - ACPI_AREA, RAM_RESERVED};
	if (low > EXT_RAM)
		to[n++] = (struct ram_entry){EXT_RAM, low - EXT_RAM, RAM_USABLE};
	to[n++] = (struct ram_entry){ECAM_BASE, MIB(1) * (ECAM_LAST_BUS + 1), RAM_RESERVED};
	for (unsigned i = 1; i < regions && n < RAM_ENTRIES_MAX; i++)
		to[n++] = (struct ram_entry){r[i].gpa, r[i].size, RAM_USABLE};
	return n;
}

static bool overlaps(gpa_t gpa, uint64_t len, gpa_t from, gpa_t to)
{
	return gpa < to && from < gpa + len;
}

static int too_big(const struct guest_mem *m, const struct image *f, gpa_t end, struct err *e)
{
	return image_fail(f, e, ENOMEM,
			  "is too big for the memory given: it needs at least %llu MiB, "
			  "the machine has %llu MiB",
			  (unsigned long long)(align_up(end, MIB(1)) >> 20),
			  (unsigned long long)(mem_size(m) >> 20));
}

int ram_place(const struct guest_mem *m, const struct image *f, gpa_t gpa, uint64_t len,
	      uint8_t **hva, struct err *e)
{
	gpa_t low = ram_low_end(m);
	uint8_t *p;

	if (len > GIB(4) || gpa > GIB(4) - len)
		return image_fail(f, e, ENOEXEC, "loads at 0x%llx, beyond 4 GiB",
				  (unsigned long long)gpa);
	if (gpa + len > low && gpa + len > MEM_LOW_MAX)
		return image_fail(f, e, ENOEXEC, "loads at 0x%llx, where the machine has no RAM",
				  (unsigned long long)gpa);
	if (gpa + len > low)
		return too_big(m, f, gpa + len, e);
	if (overlaps(gpa, len, BOOT_AREA, BOOT_AREA_END) ||
	    overlaps(gpa, len, LOW_RAM_END, EXT_RAM))
		return image_fail(f, e, ENOEXEC,
				  "loads at 0x%llx, in memory that is reserved on a PC",
				  (unsigned long long)gpa);
	p = mem_span(m, gpa, len);
	if (!p)
		return too_big(m, f, gpa + len, e);
	*hva = p;
	return 0;
}

void ram_zero(uint8_t *hva, uint64_t len)
{
	uint8_t *first = (uint8_t *)align_up((uintptr_t)hva, PAGE);
	uint8_t *last = (uint8_t *)align_down((uintptr_t)hva + len, PAGE);

	if (first >= last || madvise(first, (size_t)(last - first), MADV_REMOVE) < 0) {
		memset(hva, 0, len);
		return;
	}
	memset(hva, 0, (size_t)(first - hva));
	memset(last, 0, (size_t)(hva + len - last));
}

int ram_load_high(const struct guest_mem *m, const struct image *f, gpa_t floor, gpa_t ceiling,
		  gpa_t *at, struct err *e)
{
	gpa_t top = min_u64(ceiling, ram_low_end(m));
	gpa_t gpa;
	void *p;
	int r;

	floor = align_up(floor, PAGE);
	if (top < floor || f->size > top - floor || align_down(top - f->size, PAGE) < floor)
		return top < ram_low_end(m) ? image_fail(f, e, E2BIG, "is too big for this kernel")
					    : too_big(m, f, floor + align_up(f->size, PAGE), e);
	gpa = align_down(top - f->size, PAGE);
	p = mem_span(m, gpa, f->size);
	if (!p)
		return too_big(m, f, gpa + f->size, e);
	r = image_read(f, 0, p, f->size, e);
	if (r == 0)
		*at = gpa;
	return r;
}

int ram_string(struct ram_strings *t, const char *s, size_t len, gpa_t *at, struct err *e)
{
	char *to;

	if (len >= BOOT_STRINGS_LEN - t->used)
		return err_set(e, E2BIG, "the command lines are longer than %u bytes",
			       BOOT_STRINGS_LEN - 1);
	to = mem_span(t->m, BOOT_STRINGS + t->used, len + 1);
	if (!to)
		return err_set(e, ENOMEM, "the machine has less than 1 MiB of memory");
	memcpy(to, s, len);
	to[len] = '\0';
	*at = BOOT_STRINGS + t->used;
	t->used += (uint32_t)len + 1;
	return 0;
}
