/* cache_slow: the cache's memory. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/jit/core.h"
#include "cpu/jit/perfmap_slow.h"

#define RELEASE_MIN MIB(8)
#define PREPARE     KIB(256)

/* The index of physical pages is virtual memory, touched only where code lies. */
static uint64_t phys_pages(const struct guest_mem *m)
{
	const struct mem_region *r;
	unsigned n = mem_regions(m, &r);

	return (mem_rom(m) ? max_u64(MEM_HIGH_BASE, r[n - 1].gpa + r[n - 1].size)
			   : r[n - 1].gpa + r[n - 1].size) >>
	       12;
}

static void *reserve(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int jit_cache_init(struct jit_cache *k, struct guest_mem *m, uint64_t bytes, struct err *e)
{
	int r;

	if (bytes && (bytes < JIT_CACHE_MIN || bytes > JIT_CACHE_MAX))
		return err_set(e, EINVAL, "code cache of %lu bytes", (unsigned long)bytes);
	k->bytes = align_up(bytes ? bytes : JIT_CACHE_DEFAULT, MIB(1));
	k->fd = memfd_create("holon-code", MFD_CLOEXEC);
	if (k->fd < 0 || ftruncate(k->fd, (off_t)k->bytes) < 0)
		return err_sys(e, errno, "code cache of %lu bytes", (unsigned long)k->bytes);
	k->rw = mmap(NULL, k->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	k->rx = mmap(NULL, k->bytes, PROT_READ | PROT_EXEC, MAP_SHARED, k->fd, 0);
	if (k->rw == MAP_FAILED || k->rx == MAP_FAILED)
		return err_sys(
			e, errno,
			"mapping the code cache (is executable shared memory forbidden here?)");
	k->mem = m;
	k->phys_count = phys_pages(m);
	k->phys = reserve(k->phys_count * sizeof *k->phys);
	k->touched = reserve(k->phys_count / (TOUCH_BYTES / 4096) + 1);
	k->arena = reserve(k->bytes);
	k->blocks_max = (uint32_t)(k->bytes / 256);
	k->block = reserve(k->blocks_max * sizeof *k->block);
	k->straddler = reserve(STRADDLERS * sizeof *k->straddler);
	if (!k->phys || !k->touched || !k->arena || !k->block || !k->straddler)
		return err_sys(e, ENOMEM, "code cache");
	r = jit_templates_init(k, e);
	if (r < 0)
		return r;
	k->arena_at = k->arena + ARENA_FIRST;
	k->arena_end = k->arena + k->bytes;
	k->hot = k->rw;
	k->hot_end = k->rw + k->bytes / 2;
	k->cold = k->hot_end;
	k->cold_end = k->rw + k->bytes;
	jit_thunks_make(k);
	k->hot_start = k->hot_ready = k->hot;
	k->cold_start = k->cold_ready = k->cold;
	r = jit_perfmap_open(&k->perfmap, e);
	if (r < 0)
		return r;
	jit_perfmap_thunks(k);
	return 0;
}

int jit_templates_init(struct jit_cache *k, struct err *e)
{
	struct jit_templates *t = &k->templates;

	t->mem = reserve(k->bytes);
	t->head = reserve(TEMPLATE_SLOTS * sizeof *t->head);
	t->seen = reserve(TEMPLATE_SEEN * sizeof *t->seen);
	if (!t->mem || !t->head || !t->seen)
		return err_sys(e, ENOMEM, "templates");
	t->at = t->mem + 8; /* 0 is none */
	t->end = t->mem + k->bytes;
	return 0;
}

void jit_templates_done(struct jit_cache *k)
{
	struct jit_templates *t = &k->templates;

	if (t->mem)
		munmap(t->mem, k->bytes);
	if (t->head)
		munmap(t->head, TEMPLATE_SLOTS * sizeof *t->head);
	if (t->seen)
		munmap(t->seen, TEMPLATE_SEEN * sizeof *t->seen);
}

static uint8_t *prepare(struct jit_cache *k, uint8_t *from, const uint8_t *end)
{
	uint8_t *first = (uint8_t *)align_down((uint64_t)from, 4096);
	uint64_t bytes = min_u64(PREPARE, (uint64_t)(end - first));

	/* Where it fails, as in older kernels, there are faults. */
	(void)madvise(first, bytes, MADV_POPULATE_WRITE);
	(void)madvise((void *)jit_rx(k, first), bytes, MADV_POPULATE_READ);
	return first + bytes;
}

void jit_cache_prepare(struct jit_cache *k)
{
	if (k->hot >= k->hot_ready)
		k->hot_ready = prepare(k, k->hot, k->hot_end);
	if (k->cold >= k->cold_ready)
		k->cold_ready = prepare(k, k->cold, k->cold_end);
}

static void give_back(uint8_t *from, const uint8_t *to, int advice)
{
	uint64_t first = align_up((uint64_t)from, 4096), end = align_down((uint64_t)to, 4096);

	if (first < end)
		(void)madvise((void *)first, end - first, advice);
}

/* Below RELEASE_MIN the pages are soon in use again, and new ones would only cost time. */
void jit_cache_release(struct jit_cache *k)
{
	uint64_t used = (uint64_t)(k->arena_at - k->arena) + (uint64_t)(k->hot - k->hot_start) +
			(uint64_t)(k->cold - k->cold_start);

	if (used < RELEASE_MIN)
		return;
	give_back(k->arena, k->arena_at, MADV_DONTNEED);
	give_back((uint8_t *)k->block, (uint8_t *)(k->block + k->blocks), MADV_DONTNEED);
	give_back(k->hot_start, k->hot, MADV_REMOVE);
	give_back(k->cold_start, k->cold, MADV_REMOVE);
}

void jit_templates_release(struct jit_cache *k)
{
	struct jit_templates *t = &k->templates;

	give_back(t->mem, t->at, MADV_DONTNEED);
	give_back((uint8_t *)t->head, (uint8_t *)(t->head + TEMPLATE_SLOTS), MADV_DONTNEED);
	give_back((uint8_t *)t->seen, (uint8_t *)(t->seen + TEMPLATE_SEEN), MADV_DONTNEED);
	t->at = t->mem + 8;
}

void jit_cache_done(struct jit_cache *k)
{
	if (k->rw && k->rw != MAP_FAILED)
		munmap(k->rw, k->bytes);
	if (k->rx && k->rx != MAP_FAILED)
		munmap(k->rx, k->bytes);
	if (k->phys)
		munmap(k->phys, k->phys_count * sizeof *k->phys);
	if (k->touched)
		munmap(k->touched, k->phys_count / (TOUCH_BYTES / 4096) + 1);
	if (k->arena)
		munmap(k->arena, k->bytes);
	if (k->block)
		munmap(k->block, k->blocks_max * sizeof *k->block);
	if (k->straddler)
		munmap(k->straddler, STRADDLERS * sizeof *k->straddler);
	jit_templates_done(k);
	if (k->fd > 0)
		close(k->fd);
	if (k->perfmap)
		fclose(k->perfmap);
}
