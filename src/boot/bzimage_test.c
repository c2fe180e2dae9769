#include "boot/boot_fixture.h"

#include <stdlib.h>
#include <string.h>

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
		{0, 0x9fc00, 1},
		{0x9fc00, 0xa0000, 2},
		{0xe0000, 0x100000, 2},
		{0x100000, MEM_LOW_MAX, 1},
		{0xb0000000, 0xc0000000, 2},
		{GIB(4), GIB(8) - MEM_LOW_MAX, 1},
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
	file_close(&initrd);
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
	file_close(&initrd);
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
	file_close(&initrd);
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
