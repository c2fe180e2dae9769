/* cache_slow: the cache's memory. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/jit/core.h"

#define DEFAULT_BYTES MIB(128)

/* The index of physical pages is virtual memory, touched only where code lies. */
static uint64_t phys_pages(const struct guest_mem *m)
{
	const struct mem_region *r;
	unsigned n = mem_regions(m, &r);

	return (r[n - 1].gpa + r[n - 1].size) >> 12;
}

static void *reserve(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int jit_cache_init(struct jit_cache *k, struct guest_mem *m, uint64_t bytes, struct err *e)
{
	k->bytes = align_up(bytes ? bytes : DEFAULT_BYTES, MIB(1));
	k->fd = memfd_create("holon-code", MFD_CLOEXEC);
	if (k->fd < 0 || ftruncate(k->fd, (off_t)k->bytes) < 0)
		return err_sys(e, errno, "code cache of %lu bytes", (unsigned long)k->bytes);
	k->rw = mmap(NULL, k->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	k->rx = mmap(NULL, k->bytes, PROT_READ | PROT_EXEC, MAP_SHARED, k->fd, 0);
	if (k->rw == MAP_FAILED || k->rx == MAP_FAILED)
		return err_sys(
			e, errno,
			"mapping the code cache (is executable shared memory forbidden here?)");
	k->phys_count = phys_pages(m);
	k->phys = reserve(k->phys_count * sizeof *k->phys);
	k->arena = reserve(k->bytes);
	k->blocks_max = (uint32_t)(k->bytes / 256);
	k->block = reserve(k->blocks_max * sizeof *k->block);
	k->straddler = reserve(STRADDLERS * sizeof *k->straddler);
	if (!k->phys || !k->arena || !k->block || !k->straddler)
		return err_sys(e, ENOMEM, "code cache");
	k->arena_at = k->arena;
	k->arena_end = k->arena + k->bytes;
	k->hot = k->rw;
	k->hot_end = k->rw + k->bytes / 2;
	k->cold = k->hot_end;
	k->cold_end = k->rw + k->bytes;
	jit_thunks_make(k);
	k->hot_start = k->hot;
	k->cold_start = k->cold;
	return 0;
}

void jit_cache_done(struct jit_cache *k)
{
	if (k->rw && k->rw != MAP_FAILED)
		munmap(k->rw, k->bytes);
	if (k->rx && k->rx != MAP_FAILED)
		munmap(k->rx, k->bytes);
	if (k->phys)
		munmap(k->phys, k->phys_count * sizeof *k->phys);
	if (k->arena)
		munmap(k->arena, k->bytes);
	if (k->block)
		munmap(k->block, k->blocks_max * sizeof *k->block);
	if (k->straddler)
		munmap(k->straddler, STRADDLERS * sizeof *k->straddler);
	if (k->fd > 0)
		close(k->fd);
}
