/* Kernels are made here byte by byte, so that each test says what it breaks. They are
 * handed over as memfds: /proc/self/fd/N is a path like any other. */
#include "boot/boot_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define RSDP 0xf0000
#define RAM  MIB(64)

struct file {
	char path[32];
	int fd;
};

static struct file file_of(const void *bytes, size_t len)
{
	struct file f = {.fd = memfd_create("boot_test", MFD_CLOEXEC)};

	assert_true(f.fd >= 0);
	assert_int_equal(write(f.fd, bytes, len), (ssize_t)len);
	snprintf(f.path, sizeof f.path, "/proc/self/fd/%d", f.fd);
	return f;
}

/* A machine, what it boots, and what came out. */
struct boot {
	struct guest_mem *m;
	struct x86_state cpu;
	struct err err;
	int result;
};

/* The vCPU before: with what no entry state may keep. */
static const struct x86_state before = {
	.rflags = RFLAGS_IF, .cr0 = CR0_CD | CR0_NW, .cr4 = CR4_PGE, .efer = EFER_SCE};

static void boot_with(struct boot *b, uint64_t ram, const struct boot_config *c)
{
	struct err e;

	memset(b, 0, sizeof *b);
	assert_int_equal(mem_new(&b->m, ram, &e), 0);
	b->cpu = before;
	b->result = boot_load(b->m, c, &b->cpu, &b->err);
}

static void boot_bytes(struct boot *b, uint64_t ram, const void *bytes, size_t len,
		       const char *initrd, const char *cmdline)
{
	struct file f = file_of(bytes, len);
	struct boot_config c = {
		.kernel = f.path, .initrd = initrd, .cmdline = cmdline, .acpi_rsdp = RSDP};

	boot_with(b, ram, &c);
	close(f.fd);
}

static uint64_t guest(const struct boot *b, gpa_t gpa, unsigned size)
{
	void *p = mem_span(b->m, gpa, size);

	assert_non_null(p);
	return load_le(p, size);
}

static const char *guest_text(const struct boot *b, gpa_t gpa)
{
	const char *s = mem_span(b->m, gpa, 256);

	assert_non_null(s);
	return s;
}

#define assert_loads(b)                                                                            \
	do {                                                                                       \
		if ((b)->result < 0)                                                               \
			fail_msg("%s", (b)->err.text);                                             \
	} while (0)

static void assert_refused(const struct boot *b, const char *reason)
{
	assert_true(b->result < 0);
	if (!strstr(b->err.text, reason))
		fail_msg("'%s' does not say '%s'", b->err.text, reason);
	assert_memory_equal(&b->cpu, &before, sizeof before);
}

/* --- bzImage --- */

enum { BZ_SETUP = 1024, BZ_PAYLOAD = 8192, BZ_LEN = BZ_SETUP + BZ_PAYLOAD };
#define BZ_PREF      0x1000000
#define BZ_INIT_SIZE 0x200000

static void make_bzimage(uint8_t b[BZ_LEN])
{
	memset(b, 0, BZ_LEN);
	b[0x1f1] = BZ_SETUP / 512 - 1;
	store_le(b + 0x1f4, BZ_PAYLOAD / 16, 4);
	store_le(b + 0x1fe, 0xaa55, 2);
	store_le(b + 0x200, 0x66eb, 2); /* jmp over the header, to 0x268 */
	memcpy(b + 0x202, "HdrS", 4);
	store_le(b + 0x206, 0x020f, 2);
	b[0x211] = 1;                       /* LOADED_HIGH */
	store_le(b + 0x22c, 0x7fffffff, 4); /* initrd_addr_max */
	store_le(b + 0x230, MIB(2), 4);     /* kernel_alignment */
	b[0x234] = 1;                       /* relocatable */
	store_le(b + 0x236, 1, 2);          /* XLF_KERNEL_64 */
	store_le(b + 0x238, 2047, 4);       /* cmdline_size */
	store_le(b + 0x250, 0x1234, 8);     /* setup_data: the loader's to fill */
	store_le(b + 0x258, BZ_PREF, 8);
	store_le(b + 0x260, BZ_INIT_SIZE, 4);
	for (unsigned i = 0; i < BZ_PAYLOAD; i++)
		b[BZ_SETUP + i] = (uint8_t)(i ^ i >> 8);
}

static void bzimage_is_entered_at_0x200_in_long_mode(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_loads(&b);
	assert_int_equal(b.cpu.rip, BZ_PREF + 0x200);
	assert_int_equal(b.cpu.rflags & RFLAGS_IF, 0);
	assert_int_equal(b.cpu.efer, EFER_LME | EFER_LMA);
	assert_int_equal(b.cpu.cr0 & ~CR0_ET, CR0_PE | CR0_PG);
	assert_int_equal(b.cpu.seg[X86_CS].sel, 0x10);
	assert_int_equal(b.cpu.seg[X86_CS].attr, 0xa9b);
	assert_int_equal(b.cpu.seg[X86_SS].sel, 0x18);
	assert_int_equal(b.cpu.seg[X86_DS].attr, 0xc93);
	assert_memory_equal(mem_span(b.m, BZ_PREF, BZ_PAYLOAD), k + BZ_SETUP, BZ_PAYLOAD);
	mem_free(b.m);
}

static void the_gdt_has_linux_selectors(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_loads(&b);
	assert_int_equal(guest(&b, b.cpu.gdtr.base + 0x10, 8), 0x00af9b000000ffff);
	assert_int_equal(guest(&b, b.cpu.gdtr.base + 0x18, 8), 0x00cf93000000ffff);
	assert_true(b.cpu.gdtr.limit >= 0x1f);
	mem_free(b.m);
}

static void page_tables_map_the_low_4_gib_to_itself(void **state)
{
	static const gpa_t probes[] = {0, BZ_PREF + 0x234, 0xfee00123, 0xffffffff};
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_loads(&b);
	for (unsigned i = 0; i < ARRAY_SIZE(probes); i++) {
		gpa_t v = probes[i];
		uint64_t l4 = guest(&b, b.cpu.cr3, 8);
		uint64_t l3 = guest(&b, (l4 & ~0xfffull) + (v >> 30) * 8, 8);
		uint64_t l2 = guest(&b, (l3 & ~0xfffull) + (v >> 21 & 511) * 8, 8);

		assert_int_equal(l4 & l3 & 3, 3);
		assert_int_equal(l2 & 0x83, 0x83);
		assert_int_equal((l2 & ~0x1fffffull) + (v & 0x1fffff), v);
	}
	mem_free(b.m);
}

static void the_zero_page_says_what_the_kernel_must_know(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;
	gpa_t zp;

	make_bzimage(k);
	boot_bytes(&b, RAM, k, sizeof k, NULL, "console=ttyS0 quiet");
	assert_loads(&b);
	zp = b.cpu.gpr[X86_RSI];
	assert_int_equal(guest(&b, zp + 0x202, 4), 0x53726448); /* HdrS came along */
	assert_int_equal(guest(&b, zp + 0x260, 4), BZ_INIT_SIZE);
	assert_int_equal(guest(&b, zp + 0x210, 1), 0xff);
	assert_int_equal(guest(&b, zp + 0x250, 8), 0);
	assert_int_equal(guest(&b, zp + 0x070, 8), RSDP);
	assert_string_equal(guest_text(&b, guest(&b, zp + 0x228, 4)), "console=ttyS0 quiet");
	mem_free(b.m);
}

static void e820_shows_ram_below_and_above_the_hole(void **state)
{
	static const struct {
		uint64_t base, end, type;
	} expected[] = {
		{0, 0x9fc00, 1},       {0x9fc00, 0xa0000, 2},       {0xe0000, 0x100000, 2},
		{0x100000, GIB(3), 1}, {0xe0000000, 0xf0000000, 2}, {GIB(4), GIB(5), 1},
	};
	uint8_t k[BZ_LEN];
	struct boot b;
	gpa_t zp;

	make_bzimage(k);
	boot_bytes(&b, GIB(4), k, sizeof k, NULL, NULL);
	assert_loads(&b);
	zp = b.cpu.gpr[X86_RSI];
	assert_int_equal(guest(&b, zp + 0x1e8, 1), ARRAY_SIZE(expected));
	for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
		gpa_t at = zp + 0x2d0 + i * 20;

		assert_int_equal(guest(&b, at, 8), expected[i].base);
		assert_int_equal(guest(&b, at + 8, 8), expected[i].end - expected[i].base);
		assert_int_equal(guest(&b, at + 16, 4), expected[i].type);
	}
	mem_free(b.m);
}

static void initrd_goes_as_high_as_ram_allows(void **state)
{
	static const char ramdisk[5000] = "ramdisk";
	struct file initrd = file_of(ramdisk, sizeof ramdisk);
	uint8_t k[BZ_LEN];
	struct boot b;
	gpa_t at;

	make_bzimage(k);
	boot_bytes(&b, RAM, k, sizeof k, initrd.path, NULL);
	assert_loads(&b);
	at = guest(&b, b.cpu.gpr[X86_RSI] + 0x218, 4);
	assert_int_equal(at, RAM - 8192);
	assert_int_equal(guest(&b, b.cpu.gpr[X86_RSI] + 0x21c, 4), sizeof ramdisk);
	assert_string_equal(guest_text(&b, at), "ramdisk");
	mem_free(b.m);
	close(initrd.fd);
}

static void initrd_stays_below_initrd_addr_max(void **state)
{
	struct file initrd = file_of("x", 1);
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	store_le(k + 0x22c, 0x1ffffff, 4);
	boot_bytes(&b, RAM, k, sizeof k, initrd.path, NULL);
	assert_loads(&b);
	assert_int_equal(guest(&b, b.cpu.gpr[X86_RSI] + 0x218, 4), 0x1fff000);
	mem_free(b.m);
	close(initrd.fd);
}

static void initrd_that_meets_the_kernel_is_refused(void **state)
{
	enum { LEN = MIB(16) };
	uint8_t *big = calloc(1, LEN);
	struct file initrd = file_of(big, LEN);
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	boot_bytes(&b, MIB(33), k, sizeof k, initrd.path, NULL);
	assert_refused(&b, "initrd '/proc/self/fd/");
	assert_refused(&b, "needs at least 34 MiB, the machine has 33 MiB");
	mem_free(b.m);
	close(initrd.fd);
	free(big);
}

static void missing_initrd_is_named(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	boot_bytes(&b, RAM, k, sizeof k, "/nonexistent/initrd", NULL);
	assert_refused(&b, "initrd '/nonexistent/initrd': No such file");
	mem_free(b.m);
}

static void kernel_that_prefers_low_memory_is_relocated(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	store_le(k + 0x258, 0x10000, 8);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_loads(&b);
	assert_int_equal(b.cpu.rip, MIB(2) + 0x200);
	mem_free(b.m);
}

static void fixed_kernel_is_not_relocated(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	store_le(k + 0x258, 0x10000, 8);
	k[0x234] = 0;
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "must be loaded at 0x10000");
	mem_free(b.m);
}

static void kernel_bigger_than_ram_is_refused(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	boot_bytes(&b, MIB(17), k, sizeof k, NULL, NULL);
	assert_refused(&b, "kernel '/proc/self/fd/");
	assert_refused(&b, "too big for the memory given: it needs at least 18 MiB, the machine "
			   "has 17 MiB");
	mem_free(b.m);
}

static void truncated_bzimage_is_refused(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	boot_bytes(&b, RAM, k, BZ_LEN - 16, NULL, NULL);
	assert_refused(&b, "is truncated: 9200 bytes of 9216 are there");
	mem_free(b.m);
}

static void last_paragraph_may_be_short(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	boot_bytes(&b, RAM, k, BZ_LEN - 15, NULL, NULL);
	assert_loads(&b);
	mem_free(b.m);
}

static void kernel_without_64_bit_entry_is_refused(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	store_le(k + 0x236, 0, 2);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "32-bit kernel");
	mem_free(b.m);
}

static void old_protocol_is_refused(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	store_le(k + 0x206, 0x0204, 2);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "boot protocol 2.04");
	mem_free(b.m);
}

static void command_line_above_cmdline_size_is_refused(void **state)
{
	uint8_t k[BZ_LEN];
	struct boot b;

	make_bzimage(k);
	store_le(k + 0x238, 4, 4);
	boot_bytes(&b, RAM, k, sizeof k, NULL, "12345");
	assert_refused(&b, "at most 4 bytes, this one has 5");
	mem_free(b.m);
}

/* --- ELF --- */

enum { ELF_CODE = 0x200, ELF_LEN = 0x300, ELF_BSS = 0x2000 };
#define ELF_BASE  0x1000000u
#define PVH_ENTRY (ELF_BASE + 0x10)

/* A segment of 0x100 bytes and some bss at ELF_BASE, and a PVH note. */
static void make_pvh(uint8_t k[ELF_LEN])
{
	Elf64_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_phoff = sizeof h,
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 2};
	Elf64_Phdr load = {.p_type = PT_LOAD,
			   .p_offset = ELF_CODE,
			   .p_vaddr = 0xffffffff81000000,
			   .p_paddr = ELF_BASE,
			   .p_filesz = 0x100,
			   .p_memsz = 0x100 + ELF_BSS};
	Elf64_Phdr note = {.p_type = PT_NOTE, .p_offset = 0x100, .p_filesz = 20 + 24};
	struct {
		Elf64_Nhdr gnu;
		char gnu_name[4];
		uint32_t gnu_desc;
		Elf64_Nhdr xen;
		char xen_name[4];
		uint8_t xen_desc[8];
	} notes = {{4, 4, 1}, "GNU", 7, {4, 8, 18}, "Xen", {0}};

	_Static_assert(sizeof notes == 20 + 24, "no padding");
	store_le(notes.xen_desc, PVH_ENTRY, 8);
	memset(k, 0, ELF_LEN);
	memcpy(k, &h, sizeof h);
	memcpy(k + sizeof h, &load, sizeof load);
	memcpy(k + sizeof h + sizeof load, &note, sizeof note);
	memcpy(k + 0x100, &notes, sizeof notes);
	memset(k + ELF_CODE, 0x90, 0x100);
}

static void pvh_is_entered_in_flat_protected_mode(void **state)
{
	uint8_t k[ELF_LEN];
	struct boot b;

	make_pvh(k);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_loads(&b);
	assert_int_equal(b.cpu.rip, PVH_ENTRY);
	assert_int_equal(b.cpu.cr0 & ~CR0_ET, CR0_PE);
	assert_int_equal(b.cpu.cr4, 0);
	assert_int_equal(b.cpu.efer, 0);
	assert_int_equal(b.cpu.seg[X86_CS].attr, 0xc9b);
	assert_int_equal(b.cpu.seg[X86_CS].limit, 0xffffffff);
	assert_int_equal(b.cpu.seg[X86_ES].attr, 0xc93);
	assert_int_equal(b.cpu.tr.limit, 0x67);
	assert_int_equal(b.cpu.tr.attr, 0x8b);
	assert_int_equal(guest(&b, ELF_BASE + 0xff, 1), 0x90);
	mem_free(b.m);
}

static void hvm_start_info_leads_to_everything(void **state)
{
	struct file initrd = file_of("disk", 4);
	uint8_t k[ELF_LEN];
	struct boot b;
	gpa_t info, mod, map;

	make_pvh(k);
	boot_bytes(&b, RAM, k, sizeof k, initrd.path, "a b");
	assert_loads(&b);
	info = b.cpu.gpr[X86_RBX];
	assert_int_equal(guest(&b, info, 4), 0x336ec578);
	assert_int_equal(guest(&b, info + 4, 4), 1);
	assert_int_equal(guest(&b, info + 12, 4), 1);
	assert_string_equal(guest_text(&b, guest(&b, info + 24, 8)), "a b");
	assert_int_equal(guest(&b, info + 32, 8), RSDP);
	mod = guest(&b, info + 16, 8);
	assert_int_equal(guest(&b, mod, 8), RAM - 4096);
	assert_int_equal(guest(&b, mod + 8, 8), 4);
	map = guest(&b, info + 40, 8);
	assert_int_equal(guest(&b, info + 48, 4), 5);
	assert_int_equal(guest(&b, map + 3 * 24, 8), 0x100000);
	assert_int_equal(guest(&b, map + 3 * 24 + 8, 8), RAM - 0x100000);
	assert_int_equal(guest(&b, map + 3 * 24 + 16, 4), 1);
	mem_free(b.m);
	close(initrd.fd);
}

static void bss_is_zero_also_in_ram_that_was_used_before(void **state)
{
	static const uint8_t zero[ELF_BSS];
	uint8_t k[ELF_LEN];
	struct file f;
	struct boot_config c = {.acpi_rsdp = RSDP};
	struct boot b;

	make_pvh(k);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_loads(&b);
	memset(mem_span(b.m, ELF_BASE, 0x4000), 0xcc, 0x4000);
	f = file_of(k, sizeof k);
	c.kernel = f.path;
	assert_int_equal(boot_load(b.m, &c, &b.cpu, &b.err), 0);
	assert_memory_equal(mem_span(b.m, ELF_BASE + 0x100, ELF_BSS), zero, ELF_BSS);
	assert_int_equal(guest(&b, ELF_BASE + 0xff, 1), 0x90);
	assert_int_equal(guest(&b, ELF_BASE + 0x100 + ELF_BSS, 1), 0xcc);
	mem_free(b.m);
	close(f.fd);
}

static void truncated_elf_is_refused(void **state)
{
	uint8_t k[ELF_LEN];
	struct boot b;

	make_pvh(k);
	boot_bytes(&b, RAM, k, ELF_LEN - 1, NULL, NULL);
	assert_refused(&b, "is truncated: 256 bytes at offset 512 expected, it has 767");
	mem_free(b.m);
}

static void elf_that_loads_over_reserved_memory_is_refused(void **state)
{
	uint8_t k[ELF_LEN];
	struct boot b;

	make_pvh(k);
	store_le(k + sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_paddr), 0xf0000, 8);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "loads at 0xf0000, in memory that is reserved");
	mem_free(b.m);
}

static void elf_that_wraps_the_address_space_is_refused(void **state)
{
	uint8_t k[ELF_LEN];
	struct boot b;

	make_pvh(k);
	store_le(k + sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_memsz), UINT64_MAX - 0x1000, 8);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "beyond 4 GiB");
	mem_free(b.m);
}

static void elf_segment_larger_than_its_memory_is_refused(void **state)
{
	uint8_t k[ELF_LEN];
	struct boot b;

	make_pvh(k);
	store_le(k + sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_memsz), 0xff, 8);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "segment larger than its memory");
	mem_free(b.m);
}

static void elf_for_another_processor_is_refused(void **state)
{
	uint8_t k[ELF_LEN];
	struct boot b;

	make_pvh(k);
	store_le(k + offsetof(Elf64_Ehdr, e_machine), EM_AARCH64, 2);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "another processor (machine 183)");
	mem_free(b.m);
}

static void elf_without_any_entry_is_refused(void **state)
{
	uint8_t k[ELF_LEN];
	struct boot b;

	make_pvh(k);
	k[0x100 + 20 + offsetof(Elf64_Nhdr, n_type)] = 17; /* no longer PHYS32_ENTRY */
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "neither a PVH entry note nor a multiboot header");
	mem_free(b.m);
}

/* --- multiboot --- */

enum { MB_LEN = 0x400, MB_HEADER = 0x200 };
#define MB_BASE 0x400000u

static void make_multiboot_elf(uint8_t k[MB_LEN])
{
	Elf32_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
			.e_type = ET_EXEC,
			.e_machine = EM_386,
			.e_entry = 0xc0000020,
			.e_phoff = sizeof h,
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 1};
	Elf32_Phdr load = {.p_type = PT_LOAD,
			   .p_offset = MB_HEADER,
			   .p_vaddr = 0xc0000000,
			   .p_paddr = MB_BASE,
			   .p_filesz = 0x200,
			   .p_memsz = 0x1800};
	uint32_t header[] = {0x1badb002, 3, -(0x1badb002 + 3)};

	memset(k, 0x90, MB_LEN);
	memcpy(k, &h, sizeof h);
	memcpy(k + sizeof h, &load, sizeof load);
	memcpy(k + MB_HEADER, header, sizeof header);
}

static void multiboot_elf_is_entered_at_its_physical_address(void **state)
{
	uint8_t k[MB_LEN];
	struct boot b;

	make_multiboot_elf(k);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_loads(&b);
	assert_int_equal(b.cpu.rip, MB_BASE + 0x20);
	assert_int_equal(b.cpu.gpr[X86_RAX], 0x2badb002);
	assert_int_equal(b.cpu.cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_int_equal(b.cpu.seg[X86_CS].attr, 0xc9b);
	assert_int_equal(guest(&b, MB_BASE, 4), 0x1badb002);
	mem_free(b.m);
}

static void multiboot_information_has_memory_and_strings(void **state)
{
	uint8_t k[MB_LEN];
	struct boot b;
	gpa_t info, map;
	const char *line;

	make_multiboot_elf(k);
	boot_bytes(&b, RAM, k, sizeof k, NULL, "one two");
	assert_loads(&b);
	info = b.cpu.gpr[X86_RBX];
	assert_int_equal(guest(&b, info, 4), 0x245);
	assert_int_equal(guest(&b, info + 4, 4), 639);
	assert_int_equal(guest(&b, info + 8, 4), (RAM - MIB(1)) >> 10);
	line = guest_text(&b, guest(&b, info + 16, 4));
	assert_memory_equal(line, "/proc/self/fd/", 14);
	assert_string_equal(strchr(line, ' '), " one two");
	assert_string_equal(guest_text(&b, guest(&b, info + 64, 4)), "Holon");
	assert_int_equal(guest(&b, info + 44, 4), 5 * 24);
	map = guest(&b, info + 48, 4);
	assert_int_equal(guest(&b, map, 4), 20);
	assert_int_equal(guest(&b, map + 3 * 24 + 4, 8), 0x100000);
	assert_int_equal(guest(&b, map + 3 * 24 + 20, 4), 1);
	mem_free(b.m);
}

static void multiboot_modules_follow_the_kernel(void **state)
{
	struct file one = file_of("first", 5), two = file_of("second", 6);
	char list[128];
	uint8_t k[MB_LEN];
	struct boot b;
	gpa_t info, mods;

	snprintf(list, sizeof list, "%s with args,,and comma,%s", one.path, two.path);
	make_multiboot_elf(k);
	boot_bytes(&b, RAM, k, sizeof k, list, NULL);
	assert_loads(&b);
	info = b.cpu.gpr[X86_RBX];
	assert_int_equal(guest(&b, info, 4) & 8, 8);
	assert_int_equal(guest(&b, info + 20, 4), 2);
	mods = guest(&b, info + 24, 4);
	assert_int_equal(guest(&b, mods, 4), MB_BASE + 0x2000);
	assert_int_equal(guest(&b, mods + 4, 4), MB_BASE + 0x2005);
	assert_string_equal(strchr(guest_text(&b, guest(&b, mods + 8, 4)), ' '),
			    " with args,and comma");
	assert_int_equal(guest(&b, mods + 16, 4), MB_BASE + 0x3000);
	assert_memory_equal(guest_text(&b, MB_BASE + 0x3000), "second", 6);
	assert_string_equal(guest_text(&b, guest(&b, mods + 24, 4)), two.path);
	mem_free(b.m);
	close(one.fd);
	close(two.fd);
}

/* A raw image: 0x40 bytes, the header, code; loaded from the first byte on. */
static void make_multiboot_flat(uint8_t k[MB_LEN])
{
	uint32_t header[] = {0x1badb002,     0x10000, -(0x1badb002 + 0x10000), MB_BASE + 0x40,
			     MB_BASE + 0x20, 0,       MB_BASE + 0x1000,        MB_BASE + 0x60};

	memset(k, 0x90, MB_LEN);
	memcpy(k + 0x40, header, sizeof header);
}

static void multiboot_header_may_carry_the_addresses(void **state)
{
	uint8_t k[MB_LEN];
	struct boot b;

	make_multiboot_flat(k);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_loads(&b);
	assert_int_equal(b.cpu.rip, MB_BASE + 0x60);
	assert_int_equal(guest(&b, MB_BASE + 0x1f, 1), 0); /* before load_addr: not loaded */
	assert_int_equal(guest(&b, MB_BASE + 0x20, 1), 0x90);
	assert_int_equal(guest(&b, MB_BASE + 0x40, 4), 0x1badb002);
	assert_int_equal(guest(&b, MB_BASE + 0x20 + MB_LEN - 0x20 - 1, 1), 0x90);
	mem_free(b.m);
}

static void multiboot_addresses_that_contradict_are_refused(void **state)
{
	uint8_t k[MB_LEN];
	struct boot b;

	make_multiboot_flat(k);
	store_le(k + 0x40 + 16, MB_BASE + 0x41, 4); /* load_addr after header_addr */
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "bad addresses");
	mem_free(b.m);
}

static void multiboot_demand_that_we_do_not_know_is_refused(void **state)
{
	uint32_t header[] = {0x1badb002, 0x8, -(0x1badb002 + 0x8)};
	uint8_t k[MB_LEN];
	struct boot b;

	make_multiboot_elf(k);
	memcpy(k + MB_HEADER, header, sizeof header);
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "features that do not exist (flags 0x8)");
	mem_free(b.m);
}

static void multiboot_header_with_a_bad_checksum_is_none(void **state)
{
	uint8_t k[MB_LEN];
	struct boot b;

	make_multiboot_elf(k);
	k[MB_HEADER + 8] ^= 1;
	boot_bytes(&b, RAM, k, sizeof k, NULL, NULL);
	assert_refused(&b, "nor a multiboot header");
	mem_free(b.m);
}

/* --- what is no kernel --- */

static void text_is_not_a_kernel(void **state)
{
	struct boot b;

	boot_bytes(&b, RAM, "#!/bin/sh\n", 10, NULL, NULL);
	assert_refused(&b, "is not a kernel");
	mem_free(b.m);
}

static void empty_file_and_directory_are_refused(void **state)
{
	struct boot_config c = {.kernel = "/"};
	struct boot b;

	boot_bytes(&b, RAM, "", 0, NULL, NULL);
	assert_refused(&b, "is empty");
	mem_free(b.m);
	boot_with(&b, RAM, &c);
	assert_refused(&b, "kernel '/': is a directory");
	mem_free(b.m);
}

static void missing_kernel_is_named(void **state)
{
	struct boot_config c = {.kernel = "/nonexistent/vmlinuz"};
	struct boot b;

	boot_with(&b, RAM, &c);
	assert_refused(&b, "kernel '/nonexistent/vmlinuz': No such file");
	mem_free(b.m);
}

/* HOLON_TEST_KERNEL names a distribution's bzImage or vmlinux; without one there is nothing to see. */
static void stock_kernel_loads(void **state)
{
	struct boot_config c = {.kernel = getenv("HOLON_TEST_KERNEL"), .cmdline = "quiet"};
	struct boot b;

	if (!c.kernel)
		skip();
	boot_with(&b, MIB(512), &c);
	assert_loads(&b);
	assert_int_not_equal(guest(&b, b.cpu.rip, 8), 0);
	mem_free(b.m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bzimage_is_entered_at_0x200_in_long_mode),
		cmocka_unit_test(the_gdt_has_linux_selectors),
		cmocka_unit_test(page_tables_map_the_low_4_gib_to_itself),
		cmocka_unit_test(the_zero_page_says_what_the_kernel_must_know),
		cmocka_unit_test(e820_shows_ram_below_and_above_the_hole),
		cmocka_unit_test(initrd_goes_as_high_as_ram_allows),
		cmocka_unit_test(initrd_stays_below_initrd_addr_max),
		cmocka_unit_test(initrd_that_meets_the_kernel_is_refused),
		cmocka_unit_test(missing_initrd_is_named),
		cmocka_unit_test(kernel_that_prefers_low_memory_is_relocated),
		cmocka_unit_test(fixed_kernel_is_not_relocated),
		cmocka_unit_test(kernel_bigger_than_ram_is_refused),
		cmocka_unit_test(truncated_bzimage_is_refused),
		cmocka_unit_test(last_paragraph_may_be_short),
		cmocka_unit_test(kernel_without_64_bit_entry_is_refused),
		cmocka_unit_test(old_protocol_is_refused),
		cmocka_unit_test(command_line_above_cmdline_size_is_refused),
		cmocka_unit_test(pvh_is_entered_in_flat_protected_mode),
		cmocka_unit_test(hvm_start_info_leads_to_everything),
		cmocka_unit_test(bss_is_zero_also_in_ram_that_was_used_before),
		cmocka_unit_test(truncated_elf_is_refused),
		cmocka_unit_test(elf_that_loads_over_reserved_memory_is_refused),
		cmocka_unit_test(elf_that_wraps_the_address_space_is_refused),
		cmocka_unit_test(elf_segment_larger_than_its_memory_is_refused),
		cmocka_unit_test(elf_for_another_processor_is_refused),
		cmocka_unit_test(elf_without_any_entry_is_refused),
		cmocka_unit_test(multiboot_elf_is_entered_at_its_physical_address),
		cmocka_unit_test(multiboot_information_has_memory_and_strings),
		cmocka_unit_test(multiboot_modules_follow_the_kernel),
		cmocka_unit_test(multiboot_header_may_carry_the_addresses),
		cmocka_unit_test(multiboot_addresses_that_contradict_are_refused),
		cmocka_unit_test(multiboot_demand_that_we_do_not_know_is_refused),
		cmocka_unit_test(multiboot_header_with_a_bad_checksum_is_none),
		cmocka_unit_test(text_is_not_a_kernel),
		cmocka_unit_test(empty_file_and_directory_are_refused),
		cmocka_unit_test(missing_kernel_is_named),
		cmocka_unit_test(stock_kernel_loads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
