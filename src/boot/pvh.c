/* pvh: an ELF kernel entered in 32-bit protected mode without paging, at the address in
 * its XEN_ELFNOTE_PHYS32_ENTRY, with ebx at struct hvm_start_info (Xen's docs/misc/
 * pvh.pandoc; xen/include/public/arch-x86/hvm/start_info.h, version 1). */
#include "boot/boot_priv.h"

#include <string.h>

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define START_MAGIC              0x336ec578

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp;
	uint64_t memmap;
	uint32_t memmap_entries, reserved;
};

struct start_module {
	uint64_t paddr, size, cmdline, reserved;
};

struct start_memmap {
	uint64_t addr, size;
	uint32_t type, reserved;
};

_Static_assert(sizeof(struct start_info) == 56 && sizeof(struct start_module) == 32 &&
		       sizeof(struct start_memmap) == 24,
	       "the layout is Xen's");

int pvh_find(const struct elf *elf, const struct image *f, uint64_t *entry, struct err *e)
{
	return elf_note(elf, f, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, entry, e);
}

static void put_memory_map(const struct guest_mem *m, struct start_info *info)
{
	struct start_memmap *to = mem_span(m, BOOT_MAP, RAM_ENTRIES_MAX * sizeof *to);
	struct ram_entry map[RAM_ENTRIES_MAX];

	info->memmap = BOOT_MAP;
	info->memmap_entries = ram_map(m, map);
	for (unsigned i = 0; i < info->memmap_entries; i++)
		to[i] = (struct start_memmap){
			.addr = map[i].base, .size = map[i].len, .type = map[i].type};
}

static int put_initrd(const struct boot_job *j, gpa_t floor, struct start_info *info, struct err *e)
{
	struct start_module *to = mem_span(j->m, BOOT_LIST, sizeof *to);
	struct image initrd;
	gpa_t at;
	int r = image_open(&initrd, "initrd", j->c->initrd, e);

	if (r < 0)
		return r;
	r = ram_load_high(j->m, &initrd, floor, MEM_LOW_MAX, &at, e);
	if (r == 0) {
		*to = (struct start_module){.paddr = at, .size = initrd.size};
		info->modlist = BOOT_LIST;
		info->nr_modules = 1;
	}
	image_close(&initrd);
	return r;
}

int pvh_load(struct boot_job *j, const struct elf *elf, uint64_t entry, struct err *e)
{
	struct start_info info = {.magic = START_MAGIC, .version = 1, .rsdp = j->c->acpi_rsdp};
	struct ram_strings strings = {.m = j->m};
	uint8_t *code;
	gpa_t end, cmdline;
	int r = elf_load(elf, &j->kernel, j->m, &end, e);

	if (r == 0)
		r = ram_place(j->m, &j->kernel, entry, 1, &code, e);
	if (r == 0)
		r = ram_string(&strings, j->cmdline, strlen(j->cmdline), &cmdline, e);
	if (r == 0 && j->c->initrd)
		r = put_initrd(j, end, &info, e);
	if (r < 0)
		return r;
	info.cmdline = cmdline;
	put_memory_map(j->m, &info);
	memcpy(mem_span(j->m, BOOT_PARAMS, sizeof info), &info, sizeof info);
	entry_protected_mode(j->m, j->start, entry);
	j->start->gpr[X86_RBX] = BOOT_PARAMS;
	return 0;
}
