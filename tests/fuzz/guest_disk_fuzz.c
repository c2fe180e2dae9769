/* guest_disk_fuzz: any bytes as a guest's disk, searched for a kernel to boot: partition
 * tables, then libext2fs. What is found must lie in files and be text. */
#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "image/kernel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes {
	struct disk_source source;
	const uint8_t *data;
};

static int read_bytes(struct disk_source *s, uint64_t offset, void *to, uint64_t len)
{
	struct bytes *b = container_of(s, struct bytes, source);

	assert(offset <= s->size && len <= s->size - offset);
	memcpy(to, b->data + offset, len);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = {{size, read_bytes}, data};
	struct guest_kernel k;
	struct err e;
	int r = kernel_find(&b.source, &k, &e);

	if (r < 0) {
		assert(r == -e.code && memchr(e.text, 0, sizeof e.text));
		return 0;
	}
	assert(memchr(k.name, 0, sizeof k.name) && memchr(k.cmdline, 0, sizeof k.cmdline));
	assert(lseek(k.kernel_fd, 0, SEEK_END) > 0);
	close(k.kernel_fd);
	if (k.initrd_fd >= 0)
		close(k.initrd_fd);
	return 0;
}
