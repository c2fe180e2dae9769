#include "image/bootable.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/test.h"

#define DISK KIB(64)

static uint8_t disk[DISK];

static int read_disk(struct disk_source *s, uint64_t offset, void *to, uint64_t len)
{
	if (offset > DISK || len > DISK - offset)
		return -EIO;
	memcpy(to, disk + offset, len);
	return 0;
}

static int looked(uint64_t size)
{
	struct disk_source s = {.size = size, .read = read_disk};

	return bootable_by(&s);
}

static int empty(void **state)
{
	memset(disk, 0, sizeof disk);
	return 0;
}

static void make_mbr(uint8_t type, bool code)
{
	disk[0] = code ? 0xeb : 0;
	disk[446 + 4] = type;
	disk[510] = 0x55;
	disk[511] = 0xaa;
}

static void an_mbr_with_code_is_for_a_bios(void **state)
{
	assert_int_equal(looked(DISK), 0);
	make_mbr(0x83, false);
	assert_int_equal(looked(DISK), 0);
	make_mbr(0x83, true);
	assert_int_equal(looked(DISK), BOOTABLE_BIOS);
	make_mbr(0xef, false);
	assert_int_equal(looked(DISK), BOOTABLE_UEFI);
}

static void a_gpt_says_by_its_partitions(void **state)
{
	static const uint8_t esp[] = {0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11,
				      0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b};

	make_mbr(0xee, true); /* that code may say only that there is nothing */
	memcpy(disk + 512, "EFI PART", 8);
	store_le(disk + 512 + 72, 2, 8);
	store_le(disk + 512 + 80, 128, 4);
	store_le(disk + 512 + 84, 128, 4);
	assert_int_equal(looked(DISK), 0);
	memcpy(disk + 1024 + 128, esp, sizeof esp);
	assert_int_equal(looked(DISK), BOOTABLE_UEFI);
	memcpy(disk + 1024 + 256, "Hah!IdontNeedEFI", 16);
	assert_int_equal(looked(DISK), BOOTABLE_UEFI | BOOTABLE_BIOS);
	/* tables that lead nowhere */
	store_le(disk + 512 + 72, UINT64_MAX, 8);
	assert_int_equal(looked(DISK), 0);
	store_le(disk + 512 + 72, DISK / 512 - 1, 8);
	store_le(disk + 512 + 80, UINT32_MAX, 4);
	assert_int_equal(looked(DISK), 0);
}

static void make_cd(void)
{
	uint8_t *c = disk + 20 * 2048;

	memcpy(disk + 17 * 2048, "\0CD001\1EL TORITO SPECIFICATION", 30);
	store_le(disk + 17 * 2048 + 0x47, 20, 4);
	c[0] = 1;
	c[30] = 0x55;
	c[31] = 0xaa;
	c[32] = 0x88;
}

static void a_cd_says_by_its_catalogue(void **state)
{
	uint8_t *c = disk + 20 * 2048;

	make_cd();
	assert_int_equal(looked(DISK), BOOTABLE_BIOS);
	c[64] = 0x91;
	c[65] = 0xef;
	c[66] = 1;
	assert_int_equal(looked(DISK), BOOTABLE_BIOS | BOOTABLE_UEFI);
	c[1] = 0xef;
	assert_int_equal(looked(DISK), BOOTABLE_UEFI);
	/* sections without end, and a catalogue that is not on the CD */
	store_le(c + 66, 0xffff, 2);
	assert_int_equal(looked(DISK), BOOTABLE_UEFI);
	store_le(disk + 17 * 2048 + 0x47, UINT32_MAX, 4);
	assert_int_equal(looked(DISK), 0);
}

static void a_source_that_fails_is_an_error(void **state)
{
	assert_int_equal(looked(100), 0);
	assert_int_equal(looked(MIB(1)), 0);
	make_cd();
	store_le(disk + 17 * 2048 + 0x47, 100, 4);
	assert_int_equal(looked(MIB(1)), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(an_mbr_with_code_is_for_a_bios, empty),
		cmocka_unit_test_setup(a_gpt_says_by_its_partitions, empty),
		cmocka_unit_test_setup(a_cd_says_by_its_catalogue, empty),
		cmocka_unit_test_setup(a_source_that_fails_is_an_error, empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
