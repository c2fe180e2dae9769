/* Disks are made by mke2fs -d in a temporary directory; partition tables by hand. */
#include "image/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/test.h"

#define PART_AT MIB(1)

static char dir[] = "/tmp/holon-kernel-test.XXXXXX";

struct disk {
	struct disk_source source;
	int fd;
};

static int disk_read(struct disk_source *s, uint64_t offset, void *to, uint64_t len)
{
	struct disk *d = container_of(s, struct disk, source);

	return pread(d->fd, to, len, (off_t)offset) == (ssize_t)len ? 0 : -EIO;
}

static void run(const char *command)
{
	char line[2048];

	snprintf(line, sizeof line, "cd %s && PATH=$PATH:/usr/sbin:/sbin && { %s; } >log 2>&1", dir,
		 command);
	assert_int_equal(system(line), 0);
}

/* A disk of 16 MiB with one file system, made from the directory "root", at PART_AT. */
static struct disk *make_disk(const char *fill)
{
	struct disk *d = calloc(1, sizeof *d);
	char path[64];

	run("rm -rf root disk && mkdir -p root/boot root/etc && truncate -s 16M disk");
	run(fill);
	run("mke2fs -q -F -t ext4 -U 01234567-89ab-cdef-0123-456789abcdef -E offset=1048576 "
	    "-d root disk 14M");
	snprintf(path, sizeof path, "%s/disk", dir);
	d->fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(d->fd >= 0);
	d->source = (struct disk_source){MIB(16), disk_read};
	return d;
}

static void put(struct disk *d, uint64_t at, const void *bytes, size_t len)
{
	assert_int_equal(pwrite(d->fd, bytes, len, (off_t)at), len);
}

static void put_mbr(struct disk *d, uint8_t type, uint32_t first, uint32_t count)
{
	uint8_t entry[16] = {[4] = type};

	store_le(entry + 8, first, 4);
	store_le(entry + 12, count, 4);
	put(d, 446, entry, sizeof entry);
	put(d, 510, "\x55\xaa", 2);
}

static void put_gpt(struct disk *d, uint64_t first, uint64_t last)
{
	uint8_t head[512] = "EFI PART", entry[128] = "some type's guid";

	put_mbr(d, 0xee, 1, 0xffffffff);
	store_le(head + 72, 2, 8);
	store_le(head + 80, 128, 4);
	store_le(head + 84, 128, 4);
	put(d, 512, head, sizeof head);
	store_le(entry + 32, first, 8);
	store_le(entry + 40, last, 8);
	put(d, 1024 + 128, entry, sizeof entry); /* the second; the first is unused */
}

static void free_disk(struct disk *d)
{
	close(d->fd);
	free(d);
}

static struct guest_kernel found_on(struct disk *d)
{
	struct guest_kernel k;
	struct err e = {0};

	if (kernel_find(&d->source, &k, &e) < 0)
		fail_msg("%s", e.text);
	free_disk(d);
	return k;
}

static void assert_file(int fd, const char *text)
{
	char got[64] = "";

	assert_int_equal(pread(fd, got, sizeof got - 1, 0), strlen(text));
	assert_string_equal(got, text);
	close(fd);
}

#define DEBIAN                                                                                     \
	"echo -n old >root/boot/vmlinuz-6.1.0-9; echo -n new >root/boot/vmlinuz-6.1.0-10; "        \
	"echo -n oldrd >root/boot/initrd.img-6.1.0-9; "                                            \
	"echo -n newrd >root/boot/initrd.img-6.1.0-10; echo / >root/etc/fstab; "

static void kernel_that_the_link_names_is_taken_with_its_initrd(void **state)
{
	struct disk *d = make_disk(DEBIAN "ln -s boot/vmlinuz-6.1.0-9 root/vmlinuz");
	struct guest_kernel k;

	put_gpt(d, 2048, 30719);
	k = found_on(d);
	assert_string_equal(k.name, "vmlinuz-6.1.0-9");
	assert_file(k.kernel_fd, "old");
	assert_file(k.initrd_fd, "oldrd");
}

static void newest_counts_where_no_link_is(void **state)
{
	struct disk *d = make_disk(DEBIAN "ln -s boot/vmlinuz-gone root/vmlinuz");
	struct guest_kernel k;

	put_mbr(d, 0x83, 2048, 28672);
	k = found_on(d);
	assert_string_equal(k.name, "vmlinuz-6.1.0-10");
	assert_file(k.kernel_fd, "new");
	assert_file(k.initrd_fd, "newrd");
}

static void file_system_of_its_own_for_boot_is_found(void **state)
{
	struct disk *d = make_disk("echo -n k >root/vmlinuz-5; echo -n i >root/initramfs-5.img");
	struct guest_kernel k;

	put_gpt(d, 2048, 30719);
	k = found_on(d);
	assert_string_equal(k.cmdline, "console=ttyS0");
	assert_file(k.kernel_fd, "k");
	assert_file(k.initrd_fd, "i");
}

static void command_line_is_the_systems_own(void **state)
{
	struct disk *d = make_disk(DEBIAN "mkdir root/etc/kernel; "
					  "echo 'root=PARTUUID=7 ro console=ttyS0 quiet' "
					  ">root/etc/kernel/cmdline");
	struct guest_kernel k;

	put_gpt(d, 2048, 30719);
	k = found_on(d);
	assert_string_equal(k.cmdline, "root=PARTUUID=7 ro console=ttyS0 quiet");
	close(k.kernel_fd);
	close(k.initrd_fd);
}

static void command_line_of_grub_gets_a_root_and_a_console(void **state)
{
	struct disk *d = make_disk(
		DEBIAN "mkdir root/etc/default; "
		       "printf '#GRUB_CMDLINE_LINUX=\"no\"\\nGRUB_CMDLINE_LINUX=\"a=1\"\\n"
		       "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\\n' >root/etc/default/grub");
	struct guest_kernel k;

	put_gpt(d, 2048, 30719);
	k = found_on(d);
	assert_string_equal(
		k.cmdline,
		"a=1 quiet root=UUID=01234567-89ab-cdef-0123-456789abcdef ro console=ttyS0");
	close(k.kernel_fd);
	close(k.initrd_fd);
}

static void disk_without_a_kernel_says_what_was_looked_for(void **state)
{
	struct disk *d = make_disk("true");
	struct guest_kernel k;
	struct err e = {0};

	put_gpt(d, 2048, 30719);
	assert_int_equal(kernel_find(&d->source, &k, &e), -ENOENT);
	assert_non_null(strstr(e.text, "/vmlinuz"));
	put(d, PART_AT + 1024 + 0x38, "\0\0", 2);
	assert_int_equal(kernel_find(&d->source, &k, &e), -ENOENT);
	assert_non_null(strstr(e.text, "ext4"));
	free_disk(d);
}

static void file_of_the_system_is_found_by_its_path(void **state)
{
	struct disk *d = make_disk("echo / >root/etc/fstab");

	put_gpt(d, 2048, 30719);
	assert_true(system_has(&d->source, "/etc/fstab"));
	assert_false(system_has(&d->source, "/etc/fstab2"));
	free_disk(d);
}

static void partition_beyond_the_disk_is_none(void **state)
{
	struct disk *d = make_disk("true");
	struct partition p[PARTITIONS_MAX];

	put_gpt(d, 2048, 1 << 20);
	assert_int_equal(partitions_read(&d->source, p), 0);
	put_gpt(d, UINT64_MAX - 5, UINT64_MAX - 1);
	assert_int_equal(partitions_read(&d->source, p), 0);
	put_gpt(d, 2048, 32767);
	assert_int_equal(partitions_read(&d->source, p), 1);
	assert_int_equal(p[0].offset, PART_AT);
	assert_int_equal(p[0].len, MIB(15));
	free_disk(d);
}

static int make_dir(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	run("rm -rf root disk");
	run("rm log");
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernel_that_the_link_names_is_taken_with_its_initrd),
		cmocka_unit_test(newest_counts_where_no_link_is),
		cmocka_unit_test(file_system_of_its_own_for_boot_is_found),
		cmocka_unit_test(command_line_is_the_systems_own),
		cmocka_unit_test(command_line_of_grub_gets_a_root_and_a_console),
		cmocka_unit_test(disk_without_a_kernel_says_what_was_looked_for),
		cmocka_unit_test(file_of_the_system_is_found_by_its_path),
		cmocka_unit_test(partition_beyond_the_disk_is_none),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
