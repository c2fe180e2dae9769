/* kernel_fuzz: a kernel file of any kind. Each input is loaded twice: as it is, and once
 * more into the RAM that the first time left behind, with itself as the initrd. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	int fd = memfd_create("kernel_fuzz", MFD_CLOEXEC);
	struct boot_config c = {.cmdline = "console=ttyS0", .acpi_rsdp = 0xf0000};
	struct x86_state cpu = {0};
	struct guest_mem *m = NULL;
	struct err e;
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len || mem_new(&m, MIB(32), &e) < 0)
		abort();
	c.kernel = path;
	for (int i = 0; i < 2; i++) {
		/* An entry must lie in RAM, whatever the file says. */
		if (boot_load(m, &c, &cpu, &e) == 0 && !mem_span(m, cpu.rip, 1))
			abort();
		c.initrd = path;
	}
	mem_free(m);
	close(fd);
	return 0;
}
