/* elf: reads the program headers of an ELF file of either class, little-endian, and loads
 * its segments at their physical addresses. Section headers are never looked at. */
#include "boot/boot_priv.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define NOTES_MAX KIB(64)

bool elf_is(const struct image *f)
{
	uint8_t head[SELFMAG];

	return f->size >= SELFMAG && image_read(f, 0, head, SELFMAG, NULL) == 0 &&
	       !memcmp(head, ELFMAG, SELFMAG);
}

static void take_segment32(struct elf_segment *s, const uint8_t *bytes)
{
	Elf32_Phdr p;

	memcpy(&p, bytes, sizeof p);
	*s = (struct elf_segment){p.p_type,  p.p_offset, p.p_vaddr,
				  p.p_paddr, p.p_filesz, p.p_memsz};
}

static void take_segment64(struct elf_segment *s, const uint8_t *bytes)
{
	Elf64_Phdr p;

	memcpy(&p, bytes, sizeof p);
	*s = (struct elf_segment){p.p_type,  p.p_offset, p.p_vaddr,
				  p.p_paddr, p.p_filesz, p.p_memsz};
}

static int read_segments(struct elf *elf, const struct image *f, uint64_t off, unsigned size,
			 unsigned count, struct err *e)
{
	uint8_t bytes[ELF_SEGMENTS_MAX * sizeof(Elf64_Phdr)];
	int r;

	if (size != (elf->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) || count == 0 ||
	    count > ELF_SEGMENTS_MAX)
		return image_fail(f, e, ENOEXEC, "has a bad ELF program header table");
	r = image_read(f, off, bytes, (uint64_t)size * count, e);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < count; i++)
		(elf->is64 ? take_segment64 : take_segment32)(&elf->seg[i], bytes + i * size);
	elf->count = count;
	return 0;
}

static int read_header32(struct elf *elf, const struct image *f, struct err *e)
{
	Elf32_Ehdr h;
	int r = image_read(f, 0, &h, sizeof h, e);

	if (r < 0)
		return r;
	elf->machine = h.e_machine;
	elf->entry = h.e_entry;
	return read_segments(elf, f, h.e_phoff, h.e_phentsize, h.e_phnum, e);
}

static int read_header64(struct elf *elf, const struct image *f, struct err *e)
{
	Elf64_Ehdr h;
	int r = image_read(f, 0, &h, sizeof h, e);

	if (r < 0)
		return r;
	elf->machine = h.e_machine;
	elf->entry = h.e_entry;
	return read_segments(elf, f, h.e_phoff, h.e_phentsize, h.e_phnum, e);
}

int elf_open(struct elf *elf, const struct image *f, struct err *e)
{
	uint8_t ident[EI_NIDENT];
	int r = image_read(f, 0, ident, sizeof ident, e);

	if (r < 0)
		return r;
	*elf = (struct elf){.is64 = ident[EI_CLASS] == ELFCLASS64};
	if (ident[EI_DATA] != ELFDATA2LSB ||
	    (ident[EI_CLASS] != ELFCLASS64 && ident[EI_CLASS] != ELFCLASS32))
		return image_fail(f, e, ENOEXEC, "is an ELF file for another kind of machine");
	r = elf->is64 ? read_header64(elf, f, e) : read_header32(elf, f, e);
	if (r == 0 && elf->machine != EM_X86_64 && elf->machine != EM_386)
		r = image_fail(f, e, ENOEXEC, "is an ELF file for another processor (machine %u)",
			       elf->machine);
	return r;
}

static int load_segment(const struct elf_segment *s, const struct image *f,
			const struct guest_mem *m, gpa_t *end, struct err *e)
{
	uint8_t *to;
	int r;

	if (s->filesz > s->memsz)
		return image_fail(f, e, ENOEXEC, "has an ELF segment larger than its memory");
	r = ram_place(m, f, s->paddr, s->memsz, &to, e);
	if (r == 0)
		r = image_read(f, s->offset, to, s->filesz, e);
	if (r < 0)
		return r;
	ram_zero(to + s->filesz, s->memsz - s->filesz);
	*end = max_u64(*end, s->paddr + s->memsz);
	return 0;
}

int elf_load(const struct elf *elf, const struct image *f, const struct guest_mem *m, gpa_t *end,
	     struct err *e)
{
	gpa_t last = 0;

	for (unsigned i = 0; i < elf->count; i++) {
		const struct elf_segment *s = &elf->seg[i];
		int r = 0;

		if (s->type == PT_LOAD && s->memsz)
			r = load_segment(s, f, m, &last, e);
		if (r < 0)
			return r;
	}
	if (last == 0)
		return image_fail(f, e, ENOEXEC, "has no ELF segment to load");
	*end = last;
	return 0;
}

/* One note: header, name and description, each padded to four bytes. Returns the length
 * of all that, 0 when it does not fit. */
static uint64_t note_len(const Elf64_Nhdr *n, uint64_t left)
{
	uint64_t len = sizeof *n + align_up(n->n_namesz, 4) + align_up(n->n_descsz, 4);

	/* The padding of the last one may be missing. */
	if (sizeof *n + align_up(n->n_namesz, 4) + n->n_descsz > left)
		return 0;
	return min_u64(len, left);
}

static bool note_matches(const Elf64_Nhdr *n, const uint8_t *at, const char *name, uint32_t type)
{
	size_t len = strlen(name) + 1;

	return n->n_type == type && n->n_namesz == len && (n->n_descsz == 4 || n->n_descsz == 8) &&
	       !memcmp(at + sizeof *n, name, len);
}

static int search_notes(const uint8_t *bytes, uint64_t len, const char *name, uint32_t type,
			uint64_t *value)
{
	uint64_t off = 0;

	while (len - off >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		uint64_t step;

		memcpy(&n, bytes + off, sizeof n);
		step = note_len(&n, len - off);
		if (step == 0)
			return 0;
		if (note_matches(&n, bytes + off, name, type)) {
			*value = load_le(bytes + off + sizeof n + align_up(n.n_namesz, 4),
					 n.n_descsz);
			return 1;
		}
		off += step;
	}
	return 0;
}

int elf_note(const struct elf *elf, const struct image *f, const char *name, uint32_t type,
	     uint64_t *value, struct err *e)
{
	uint8_t bytes[NOTES_MAX];

	for (unsigned i = 0; i < elf->count; i++) {
		const struct elf_segment *s = &elf->seg[i];
		uint64_t len = min_u64(s->filesz, NOTES_MAX);
		int r;

		if (s->type != PT_NOTE)
			continue;
		r = image_read(f, s->offset, bytes, len, e);
		if (r == 0)
			r = search_notes(bytes, len, name, type, value);
		if (r)
			return r;
	}
	return 0;
}
