/* mem: one memfd behind two mappings. Their host addresses lie in one reservation,
 *
 *	guard | low region | guard | high region | guard | ROM | guard
 *
 * whose guards are mapped without rights, so that a host access which runs off a region
 * faults instead of reaching something else. Regions start on 2 MiB both in host memory
 * and in the file, as huge pages need.
 *
 * Marks are bits, one per page of the reservation. Writer and watcher meet like this: the
 * watcher sets the bit, then reads the bytes; the writer writes the bytes, then reads the bit,
 * each with a full barrier in between, so at least one sees what the other did. */
#include "mem/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/auto.h"

#define PAGE    4096
#define HUGE    MIB(2)
#define RAM_MIN MIB(1)
#define RAM_MAX (UINT64_C(1) << 46) /* half of what a process can map */

struct guest_mem {
	int fd;
	uint64_t size;
	void *reserved; /* the mapping that holds regions and guards */
	uint64_t reserved_len;
	struct mem_region region[2];
	unsigned regions;
	struct mem_region rom; /* size 0: none */

	_Atomic uint64_t *marks; /* by page from the first region's start */
	uint64_t marks_len;
	_Atomic uint8_t *huge; /* by HUGE from there: how often it was wanted (mem_want_huge) */
	_Atomic unsigned huge_refused; /* in a row (mem_make_huge) */
	pthread_mutex_t watch_lock;    /* held while the watch is called */
	struct mem_watch *_Atomic watch;
};

/* Divides the reservation; hva is then an offset into it, not an address. */
static void lay_out(struct guest_mem *m, uint64_t hva[2], uint64_t *rom)
{
	uint64_t low = min_u64(m->size, MEM_LOW_MAX);

	m->region[0] = (struct mem_region){.gpa = 0, .size = low};
	m->region[1] = (struct mem_region){
		.gpa = MEM_HIGH_BASE,
		.size = m->size - low,
		.fd_offset = low,
	};
	m->regions = m->region[1].size ? 2 : 1;
	hva[0] = HUGE;
	hva[1] = align_up(hva[0] + low, HUGE) + HUGE;
	m->reserved_len = hva[1];
	if (m->regions == 2)
		m->reserved_len = align_up(hva[1] + m->region[1].size, HUGE) + HUGE;
	*rom = m->reserved_len;
	m->rom.gpa = MEM_HIGH_BASE - m->rom.size;
	m->rom.fd_offset = m->size;
	if (m->rom.size)
		m->reserved_len = align_up(*rom + m->rom.size, HUGE) + HUGE;
	m->reserved_len += HUGE; /* room to align the start */
}

static int map_region(struct guest_mem *m, struct mem_region *r, uint8_t *at, struct err *e)
{
	r->hva = mmap(at, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
		      m->fd, (off_t)r->fd_offset);
	if (r->hva == MAP_FAILED)
		return err_sys(e, errno, "map %" PRIu64 " MiB", r->size >> 20);
	madvise(r->hva, r->size, MADV_DONTDUMP);
	return 0;
}

static int map_regions(struct guest_mem *m, struct err *e)
{
	uint64_t offset[2], rom;
	uint8_t *base;
	int r = 0;

	lay_out(m, offset, &rom);
	m->reserved = mmap(NULL, m->reserved_len, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->reserved == MAP_FAILED)
		return err_sys(e, errno, "reserve %" PRIu64 " MiB of address space",
			       m->reserved_len >> 20);
	base = m->reserved;
	base += align_up((uintptr_t)base, HUGE) - (uintptr_t)base;

	for (unsigned i = 0; i < m->regions && r == 0; i++) {
		r = map_region(m, &m->region[i], base + offset[i], e);
		if (r == 0) /* a wish: kernels without huge pages refuse it */
			madvise(m->region[i].hva, m->region[i].size, MADV_HUGEPAGE);
	}
	return r < 0 || !m->rom.size ? r : map_region(m, &m->rom, base + rom, e);
}

/* Virtual memory, touched only where marks are set. */
static int make_marks(struct guest_mem *m, struct err *e)
{
	uint64_t pages = m->reserved_len / PAGE;
	void *p;

	m->marks_len = align_up(pages / 8 + 8, PAGE);
	p = mmap(NULL, m->marks_len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return err_sys(e, errno, "marks of %" PRIu64 " pages", pages);
	m->marks = p;
	m->huge = calloc(m->reserved_len / HUGE, 1);
	return m->huge ? 0 : err_sys(e, ENOMEM, "guest RAM");
}

static int open_ram(struct guest_mem *m, struct err *e)
{
	int r;

	m->fd = memfd_create("holon-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (m->fd < 0)
		return err_sys(e, errno, "memfd");
	if (ftruncate(m->fd, (off_t)(m->size + m->rom.size)) < 0)
		return err_sys(e, errno, "memfd of %" PRIu64 " MiB", m->size >> 20);
	/* The file may be shared with other processes; none may cut it under us. */
	if (fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return err_sys(e, errno, "seal memfd");
	r = map_regions(m, e);
	return r < 0 ? r : make_marks(m, e);
}

int mem_new(struct guest_mem **out, uint64_t ram_bytes, struct err *e)
{
	return mem_new_with_rom(out, ram_bytes, 0, e);
}

int mem_new_with_rom(struct guest_mem **out, uint64_t ram_bytes, uint64_t rom_bytes, struct err *e)
{
	struct guest_mem *m;
	int r;

	if (ram_bytes < RAM_MIN || ram_bytes > RAM_MAX)
		return err_set(e, EINVAL, "guest RAM of %" PRIu64 " KiB: must be 1 MiB to 64 TiB",
			       ram_bytes >> 10);
	if (rom_bytes > MEM_ROM_MAX || rom_bytes % PAGE)
		return err_set(e, EINVAL, "a ROM of %" PRIu64 " bytes: at most 16 MiB, in pages",
			       rom_bytes);
	m = calloc(1, sizeof *m);
	if (!m)
		return err_sys(e, ENOMEM, "guest RAM");
	m->fd = -1;
	m->reserved = MAP_FAILED;
	pthread_mutex_init(&m->watch_lock, NULL);
	m->size = align_up(ram_bytes, PAGE);
	m->rom.size = rom_bytes;
	r = open_ram(m, e);
	if (r < 0) {
		err_wrap(e, "guest RAM");
		mem_free(m);
	} else {
		*out = m;
	}
	return r;
}

void mem_free(struct guest_mem *m)
{
	if (!m)
		return;
	if (m->reserved != MAP_FAILED)
		munmap(m->reserved, m->reserved_len);
	free((void *)m->huge);
	if (m->marks)
		munmap((void *)m->marks, m->marks_len);
	if (m->fd >= 0)
		close(m->fd);
	pthread_mutex_destroy(&m->watch_lock);
	free(m);
}

uint64_t mem_size(const struct guest_mem *m)
{
	return m->size;
}

int mem_fd(const struct guest_mem *m)
{
	return m->fd;
}

unsigned mem_regions(const struct guest_mem *m, const struct mem_region **out)
{
	*out = m->region;
	return m->regions;
}

static void *span_in(const struct mem_region *r, gpa_t gpa, uint64_t len)
{
	uint64_t offset = gpa - r->gpa; /* wraps to something large below the region */

	return offset < r->size && len <= r->size - offset ? r->hva + offset : NULL;
}

void *mem_ram(const struct guest_mem *m, gpa_t gpa, uint64_t len)
{
	void *p = span_in(&m->region[0], gpa, len);

	return p || m->regions < 2 ? p : span_in(&m->region[1], gpa, len);
}

void *mem_span(const struct guest_mem *m, gpa_t gpa, uint64_t len)
{
	void *p = mem_ram(m, gpa, len);

	return p ? p : span_in(&m->rom, gpa, len);
}

const struct mem_region *mem_rom(const struct guest_mem *m)
{
	return m->rom.size ? &m->rom : NULL;
}

gpa_t mem_gpa(const struct guest_mem *m, const void *hva)
{
	const struct mem_region *r = &m->region[m->regions - 1];

	if (m->rom.size && (const uint8_t *)hva >= m->rom.hva)
		r = &m->rom;
	else if ((const uint8_t *)hva < r->hva)
		r = &m->region[0];
	return r->gpa + (uint64_t)((const uint8_t *)hva - r->hva);
}

int mem_read(const struct guest_mem *m, gpa_t gpa, void *to, uint64_t len)
{
	const void *p = mem_span(m, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(to, p, len);
	return 0;
}

int mem_write(struct guest_mem *m, gpa_t gpa, const void *from, uint64_t len)
{
	void *p = mem_ram(m, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(p, from, len);
	mem_written(m, p, len);
	return 0;
}

/* --- huge pages --- */

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define HUGE_DONE  255u
#define HUGE_EVERY 2u /* of how many times that it is wanted, one is a try */
#define HUGE_TRIES 8u /* after so many refusals there is none: looking for one takes time */

/* The kernel fills gaps: so not where that would be more than a quarter. */
static bool mostly_resident(uint8_t *at)
{
	unsigned char page[HUGE / PAGE];
	unsigned n = 0;

	if (mincore(at, HUGE, page) < 0)
		return false;
	for (unsigned i = 0; i < HUGE / PAGE; i++)
		n += page[i] & 1;
	return n >= HUGE / PAGE / 4 * 3;
}

static bool within_a_region(const struct guest_mem *m, const uint8_t *at)
{
	for (unsigned i = 0; i < m->regions; i++)
		if (at >= m->region[i].hva && at + HUGE <= m->region[i].hva + m->region[i].size)
			return true;
	return false;
}

static void huge_forget(struct guest_mem *m, const uint8_t *hva, uint64_t len)
{
	uint64_t first = (uint64_t)(hva - m->region[0].hva) / HUGE;
	uint64_t last = (uint64_t)(hva + len - 1 - m->region[0].hva) / HUGE;

	for (uint64_t i = first; i <= last; i++)
		atomic_store_explicit(&m->huge[i], 0, memory_order_relaxed);
}

void mem_want_huge(struct guest_mem *m, const void *hva, uint64_t len)
{
	uint8_t *base = m->region[0].hva;
	uint64_t first = ((const uint8_t *)hva - base) / HUGE;
	uint64_t last = ((const uint8_t *)hva + len - 1 - base) / HUGE;

	for (uint64_t i = first; len && i <= last; i++) {
		uint8_t wanted = atomic_load_explicit(&m->huge[i], memory_order_relaxed);
		uint8_t *at = base + i * HUGE;

		if (wanted == HUGE_DONE)
			continue;
		/* Fails while a transfer is under way there: then a later one tries again. */
		if (wanted % HUGE_EVERY == 0 && within_a_region(m, at) && mostly_resident(at) &&
		    (madvise(at, HUGE, MADV_COLLAPSE) == 0 || errno == EINVAL))
			wanted = HUGE_DONE - 1; /* or a kernel that knows no such thing */
		atomic_store_explicit(&m->huge[i], wanted + 1, memory_order_relaxed);
	}
}

bool mem_make_huge(struct guest_mem *m, gpa_t gpa)
{
	uint8_t *at = mem_ram(m, gpa & ~(gpa_t)(HUGE - 1), HUGE);

	if (!at || atomic_load_explicit(&m->huge_refused, memory_order_relaxed) >= HUGE_TRIES)
		return false;
	if (madvise(at, HUGE, MADV_COLLAPSE) < 0) {
		atomic_fetch_add_explicit(&m->huge_refused, 1, memory_order_relaxed);
		return false;
	}
	atomic_store_explicit(&m->huge_refused, 0, memory_order_relaxed);
	return true;
}

static int punch(const struct guest_mem *m, uint64_t offset, uint64_t len)
{
	return fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			 (off_t)len) < 0
		       ? -errno
		       : 0;
}

int mem_discard(struct guest_mem *m, gpa_t gpa, uint64_t len)
{
	gpa_t first, end;
	int r;

	if (!mem_ram(m, gpa, len))
		return -EFAULT;
	first = align_up(gpa, PAGE);
	end = align_down(gpa + len, PAGE);
	if (first >= end)
		return 0;
	/* The file has the regions one after the other. */
	r = punch(m, first < MEM_HIGH_BASE ? first : first - MEM_HIGH_BASE + m->region[0].size,
		  end - first);
	if (r == 0) {
		huge_forget(m, mem_span(m, first, end - first), end - first);
		mem_written(m, mem_span(m, first, end - first), end - first);
	}
	return r;
}

/* --- marks --- */

static uint64_t page_index(const struct guest_mem *m, const void *hva)
{
	return (uint64_t)((const uint8_t *)hva - m->region[0].hva) / PAGE;
}

static void tell(struct guest_mem *m, uint64_t word, uint64_t bits)
{
	struct mem_watch *w;

	AUTO_LOCK(&m->watch_lock);
	w = atomic_load(&m->watch);
	bits &= atomic_fetch_and(&m->marks[word], ~bits);
	for (; w && bits; bits &= bits - 1)
		w->written(w, mem_gpa(m, m->region[0].hva +
						 (word * 64 + (unsigned)__builtin_ctzll(bits)) *
							 PAGE));
}

void mem_written(struct guest_mem *m, const void *hva, uint64_t len)
{
	uint64_t first, last;

	if (len == 0 || !atomic_load_explicit(&m->watch, memory_order_relaxed))
		return;
	first = page_index(m, hva);
	last = page_index(m, (const uint8_t *)hva + len - 1);
	atomic_thread_fence(memory_order_seq_cst); /* pairs with mem_mark */
	for (uint64_t word = first / 64; word <= last / 64; word++) {
		uint64_t bits = atomic_load_explicit(&m->marks[word], memory_order_relaxed);

		if (!bits)
			continue;
		if (word == first / 64)
			bits &= ~UINT64_C(0) << first % 64;
		if (word == last / 64)
			bits &= ~UINT64_C(0) >> (63 - last % 64);
		if (bits)
			tell(m, word, bits);
	}
}

void mem_watch(struct guest_mem *m, struct mem_watch *w)
{
	AUTO_LOCK(&m->watch_lock);
	atomic_store(&m->watch, w);
}

void mem_mark(struct guest_mem *m, gpa_t gpa)
{
	uint64_t i = page_index(m, mem_span(m, gpa, 1));

	/* A full barrier on x86: pairs with mem_written. */
	atomic_fetch_or(&m->marks[i / 64], BIT(i % 64));
}

void mem_unmark(struct guest_mem *m, gpa_t gpa)
{
	uint64_t i = page_index(m, mem_span(m, gpa, 1));

	atomic_fetch_and(&m->marks[i / 64], ~BIT(i % 64));
}
