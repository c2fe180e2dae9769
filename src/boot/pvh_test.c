#include "boot/boot_fixture.h"

#include <elf.h>
#include <string.h>

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
	file_close(&initrd);
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
	file_close(&f);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pvh_is_entered_in_flat_protected_mode),
		cmocka_unit_test(hvm_start_info_leads_to_everything),
		cmocka_unit_test(bss_is_zero_also_in_ram_that_was_used_before),
		cmocka_unit_test(truncated_elf_is_refused),
		cmocka_unit_test(elf_that_loads_over_reserved_memory_is_refused),
		cmocka_unit_test(elf_that_wraps_the_address_space_is_refused),
		cmocka_unit_test(elf_segment_larger_than_its_memory_is_refused),
		cmocka_unit_test(elf_for_another_processor_is_refused),
		cmocka_unit_test(elf_without_any_entry_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
