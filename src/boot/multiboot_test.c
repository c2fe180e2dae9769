#include "boot/boot_fixture.h"

#include <elf.h>
#include <stdio.h>
#include <string.h>

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
	file_close(&one);
	file_close(&two);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(multiboot_elf_is_entered_at_its_physical_address),
		cmocka_unit_test(multiboot_information_has_memory_and_strings),
		cmocka_unit_test(multiboot_modules_follow_the_kernel),
		cmocka_unit_test(multiboot_header_may_carry_the_addresses),
		cmocka_unit_test(multiboot_addresses_that_contradict_are_refused),
		cmocka_unit_test(multiboot_demand_that_we_do_not_know_is_refused),
		cmocka_unit_test(multiboot_header_with_a_bad_checksum_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
