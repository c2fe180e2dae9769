#include "boot/boot_fixture.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The vCPU before: with what no entry state may keep. */
static const struct x86_state before = {
	.rflags = RFLAGS_IF, .cr0 = CR0_CD | CR0_NW, .cr4 = CR4_PGE, .efer = EFER_SCE};

struct file file_of(const void *bytes, size_t len)
{
	struct file f = {.fd = memfd_create("boot_test", MFD_CLOEXEC)};

	assert_true(f.fd >= 0);
	assert_int_equal(write(f.fd, bytes, len), (ssize_t)len);
	snprintf(f.path, sizeof f.path, "/proc/self/fd/%d", f.fd);
	return f;
}

void file_close(struct file *f)
{
	close(f->fd);
}

void boot_with(struct boot *b, uint64_t ram, const struct boot_config *c)
{
	struct err e;

	memset(b, 0, sizeof *b);
	assert_int_equal(mem_new(&b->m, ram, &e), 0);
	b->cpu = before;
	b->result = boot_load(b->m, c, &b->cpu, &b->err);
}

void boot_bytes(struct boot *b, uint64_t ram, const void *bytes, size_t len, const char *initrd,
		const char *cmdline)
{
	struct file f = file_of(bytes, len);
	struct boot_config c = {
		.kernel = f.path, .initrd = initrd, .cmdline = cmdline, .acpi_rsdp = RSDP};

	boot_with(b, ram, &c);
	file_close(&f);
}

uint64_t guest(const struct boot *b, gpa_t gpa, unsigned size)
{
	void *p = mem_span(b->m, gpa, size);

	assert_non_null(p);
	return load_le(p, size);
}

const char *guest_text(const struct boot *b, gpa_t gpa)
{
	const char *s = mem_span(b->m, gpa, 256);

	assert_non_null(s);
	return s;
}

void assert_loads(const struct boot *b)
{
	if (b->result < 0)
		fail_msg("%s", b->err.text);
}

void assert_refused(const struct boot *b, const char *reason)
{
	assert_true(b->result < 0);
	if (!strstr(b->err.text, reason))
		fail_msg("'%s' does not say '%s'", b->err.text, reason);
	assert_memory_equal(&b->cpu, &before, sizeof before);
}
