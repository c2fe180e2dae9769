/* multiboot_fuzz: what kernel_fuzz would need long to find: images whose multiboot header
 * always has its magic and checksum, at a place and with the contents that the input
 * chooses, flat or inside an ELF file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot/boot.h"

#define MAGIC     0x1badb002u
#define IMAGE_MAX 16384

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void put_header(uint8_t *image, size_t len)
{
	/* The last byte chooses the place, the bytes there are the flags and addresses. */
	size_t at = (size_t)image[len - 1] * 4 % (len - 12) & ~(size_t)3;
	uint32_t flags = (uint32_t)load_le(image + at + 4, 4) & 0x10007;

	store_le(image + at, MAGIC, 4);
	store_le(image + at + 4, flags, 4);
	store_le(image + at + 8, -(MAGIC + flags), 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static uint8_t image[IMAGE_MAX];
	struct boot_config c = {.cmdline = "a b", .acpi_rsdp = 0xf0000};
	struct x86_state cpu = {0};
	struct guest_mem *m = NULL;
	struct err e;
	char path[32], modules[96];
	int fd;

	if (len < 64 || len > sizeof image)
		return 0;
	memcpy(image, bytes, len);
	put_header(image, len);
	fd = memfd_create("multiboot_fuzz", MFD_CLOEXEC);
	if (fd < 0 || write(fd, image, len) != (ssize_t)len || mem_new(&m, MIB(16), &e) < 0)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	snprintf(modules, sizeof modules, "%s x,%s y z,,", path, path);
	c.kernel = path;
	c.initrd = modules;
	if (boot_load(m, &c, &cpu, &e) == 0 && !mem_span(m, cpu.rip, 1))
		abort();
	mem_free(m);
	close(fd);
	return 0;
}
