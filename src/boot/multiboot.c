/* multiboot: kernels by the Multiboot Specification 0.6.96: a header in the first 8 KiB,
 * the image laid out by ELF or by the header's own addresses (the "a.out kludge"). Entered
 * in 32-bit protected mode with eax = magic, ebx = the information structure.
 *
 * As in QEMU, the kernel's command line begins with its file name, and the initrd option
 * lists modules: "FILE[ ARGS][,FILE...]", where ",," stands for a comma in a name. */
#include "boot/boot_priv.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

#define SEARCH_LEN             8192
#define HEADER_MAGIC           0x1badb002u
#define LOADED_MAGIC           0x2badb002u
#define FLAG_ADDRESSES         BIT(16)
#define FLAGS_REQUIRED_UNKNOWN 0xfff8u /* bits 0-2: page-aligned modules, memory, video */

#define INFO_MEMORY      BIT(0)
#define INFO_CMDLINE     BIT(2)
#define INFO_MODS        BIT(3)
#define INFO_MMAP        BIT(6)
#define INFO_LOADER_NAME BIT(9)

#define MODULES_MAX 64

struct header {
	uint32_t magic, flags, checksum;
	uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};
#define HEADER_SHORT 12 /* without the addresses */

struct info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4],
		mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
};

struct module {
	uint32_t start, end, string, reserved;
};

struct mmap_entry {
	uint32_t size; /* of the rest */
	uint64_t addr, len;
	uint32_t type;
} __attribute__((packed));

_Static_assert(sizeof(struct info) == 68 && sizeof(struct module) == 16 &&
		       sizeof(struct mmap_entry) == 24,
	       "the layout is multiboot's");
_Static_assert(BOOT_LIST + MODULES_MAX * sizeof(struct module) <= BOOT_TABLES, "modules fit");

int multiboot_find(const struct image *f, uint32_t *off, struct err *e)
{
	uint8_t bytes[SEARCH_LEN];
	uint32_t len = (uint32_t)min_u64(f->size, sizeof bytes);
	int r = image_read(f, 0, bytes, len, e);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i + HEADER_SHORT <= len; i += 4) {
		struct header h;

		memcpy(&h, bytes + i, HEADER_SHORT);
		if (h.magic == HEADER_MAGIC && h.magic + h.flags + h.checksum == 0) {
			*off = i;
			return 1;
		}
	}
	return 0;
}

/* Places the image by the header's addresses (3.1.3). */
static int load_flat(const struct boot_job *j, const struct header *h, uint32_t off, gpa_t *end,
		     struct err *e)
{
	const struct image *f = &j->kernel;
	uint64_t before, len, memsz;
	uint8_t *to;
	int r;

	if (h->load_addr > h->header_addr || h->header_addr - h->load_addr > off)
		return image_fail(f, e, ENOEXEC, "has a multiboot header with bad addresses");
	before = off - (h->header_addr - h->load_addr);
	len = h->load_end_addr ? (uint64_t)h->load_end_addr - h->load_addr : f->size - before;
	if (h->load_end_addr && h->load_end_addr < h->load_addr)
		return image_fail(f, e, ENOEXEC, "has a multiboot header with bad addresses");
	memsz = len;
	if (h->bss_end_addr) {
		if (h->bss_end_addr < h->load_addr + len)
			return image_fail(f, e, ENOEXEC,
					  "has a multiboot header with bad addresses");
		memsz = (uint64_t)h->bss_end_addr - h->load_addr;
	}
	r = ram_place(j->m, f, h->load_addr, memsz, &to, e);
	if (r == 0)
		r = image_read(f, before, to, len, e);
	if (r < 0)
		return r;
	ram_zero(to + len, memsz - len);
	*end = h->load_addr + memsz;
	return 0;
}

/* The entry is a physical address, or a virtual one in a segment that is loaded elsewhere. */
static uint64_t physical_entry(const struct elf *elf)
{
	for (unsigned i = 0; i < elf->count; i++) {
		const struct elf_segment *s = &elf->seg[i];

		if (s->type == PT_LOAD && elf->entry >= s->vaddr &&
		    elf->entry - s->vaddr < s->memsz)
			return s->paddr + (elf->entry - s->vaddr);
	}
	return elf->entry;
}

static int load_kernel(const struct boot_job *j, const struct elf *elf, uint32_t off, gpa_t *end,
		       uint64_t *entry, struct err *e)
{
	const struct image *f = &j->kernel;
	struct header h = {0};
	uint8_t *code;
	int r = image_read(f, off, &h, HEADER_SHORT, e);

	if (r < 0)
		return r;
	if (h.flags & FLAGS_REQUIRED_UNKNOWN)
		return image_fail(f, e, ENOEXEC,
				  "asks for multiboot features that do not exist (flags 0x%x)",
				  h.flags);
	if (h.flags & FLAG_ADDRESSES) {
		r = image_read(f, off, &h, sizeof h, e);
		if (r == 0)
			r = load_flat(j, &h, off, end, e);
		*entry = h.entry_addr;
	} else if (elf) {
		r = elf_load(elf, f, j->m, end, e);
		*entry = physical_entry(elf);
	} else {
		return image_fail(f, e, ENOEXEC,
				  "has a multiboot header, but neither addresses in it nor the "
				  "ELF format");
	}
	return r < 0 ? r : ram_place(j->m, f, *entry, 1, &code, e);
}

/* Puts the module named by text, "FILE[ ARGS]", at *at and moves that behind it. */
static int load_module(const struct boot_job *j, struct ram_strings *strings, char *text,
		       gpa_t *next, struct module *to, struct err *e)
{
	gpa_t string, at = align_up(*next, 4096);
	char *args = strchr(text, ' ');
	struct image f;
	uint8_t *bytes;
	int r = ram_string(strings, text, strlen(text), &string, e);

	if (r < 0)
		return r;
	if (args)
		*args = '\0';
	r = image_open(&f, "module", text, e);
	if (r < 0)
		return r;
	r = ram_place(j->m, &f, at, f.size, &bytes, e);
	if (r == 0)
		r = image_read(&f, 0, bytes, f.size, e);
	if (r == 0) {
		*to = (struct module){.start = (uint32_t)at,
				      .end = (uint32_t)(at + f.size),
				      .string = (uint32_t)string};
		*next = at + f.size;
	}
	image_close(&f);
	return r;
}

/* Cuts the next name off *list, with ",," turned into ",". NULL at the end. */
static char *next_module(char **list)
{
	char *from = *list, *name = from, *to = from;

	if (!from)
		return NULL;
	while (*from && (*from != ',' || from[1] == ',')) {
		if (*from == ',')
			from++;
		*to++ = *from++;
	}
	*list = *from ? from + 1 : NULL;
	*to = '\0';
	return name;
}

static int load_modules(const struct boot_job *j, struct ram_strings *strings, gpa_t next,
			struct info *info, struct err *e)
{
	struct module *to = mem_span(j->m, BOOT_LIST, MODULES_MAX * sizeof *to);
	AUTO_FREE char *copy = strdup(j->c->initrd);
	char *list = copy;
	uint32_t n = 0;

	if (!copy)
		return err_sys(e, ENOMEM, "module list");
	for (char *name; (name = next_module(&list)); n++) {
		int r;

		if (n == MODULES_MAX)
			return err_set(e, E2BIG, "more than %d modules", MODULES_MAX);
		r = load_module(j, strings, name, &next, &to[n], e);
		if (r < 0)
			return r;
	}
	info->flags |= INFO_MODS;
	info->mods_count = n;
	info->mods_addr = BOOT_LIST;
	return 0;
}

static int put_strings(const struct boot_job *j, struct ram_strings *strings, struct info *info,
		       struct err *e)
{
	static const char loader[] = "Holon";
	AUTO_FREE char *line = NULL;
	gpa_t cmdline, name;
	int r;

	if (asprintf(&line, "%s%s%s", j->c->kernel, *j->cmdline ? " " : "", j->cmdline) < 0) {
		line = NULL;
		return err_sys(e, ENOMEM, "command line");
	}
	r = ram_string(strings, line, strlen(line), &cmdline, e);
	if (r == 0)
		r = ram_string(strings, loader, strlen(loader), &name, e);
	if (r < 0)
		return r;
	info->flags |= INFO_CMDLINE | INFO_LOADER_NAME;
	info->cmdline = (uint32_t)cmdline;
	info->boot_loader_name = (uint32_t)name;
	return 0;
}

static void put_memory(const struct guest_mem *m, struct info *info)
{
	struct mmap_entry *to = mem_span(m, BOOT_MAP, RAM_ENTRIES_MAX * sizeof *to);
	struct ram_entry map[RAM_ENTRIES_MAX];
	unsigned n = ram_map(m, map);

	for (unsigned i = 0; i < n; i++)
		to[i] = (struct mmap_entry){.size = sizeof *to - sizeof to->size,
					    .addr = map[i].base,
					    .len = map[i].len,
					    .type = map[i].type};
	info->flags |= INFO_MEMORY | INFO_MMAP;
	info->mem_lower = LOW_RAM_END >> 10;
	info->mem_upper = (uint32_t)((ram_low_end(m) - EXT_RAM) >> 10);
	info->mmap_addr = BOOT_MAP;
	info->mmap_length = n * (uint32_t)sizeof *to;
}

int multiboot_load(struct boot_job *j, const struct elf *elf, uint32_t off, struct err *e)
{
	struct ram_strings strings = {.m = j->m};
	struct info info = {0};
	uint64_t entry = 0;
	gpa_t end = 0;
	int r = load_kernel(j, elf, off, &end, &entry, e);

	if (r == 0)
		r = put_strings(j, &strings, &info, e);
	if (r == 0 && j->c->initrd)
		r = load_modules(j, &strings, max_u64(end, EXT_RAM), &info, e);
	if (r < 0)
		return r;
	put_memory(j->m, &info);
	memcpy(mem_span(j->m, BOOT_PARAMS, sizeof info), &info, sizeof info);
	entry_protected_mode(j->m, j->start, entry);
	j->start->gpr[X86_RAX] = LOADED_MAGIC;
	j->start->gpr[X86_RBX] = BOOT_PARAMS;
	return 0;
}
