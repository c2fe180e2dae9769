/* mem: one memfd behind two mappings. Their host addresses lie in one reservation,
 *
 *	guard | low region | guard | high region | guard
 *
 * whose guards are mapped without rights, so that a host access which runs off a region
 * faults instead of reaching something else. Regions start on 2 MiB both in host memory
 * and in the file, as huge pages need. */
#include "mem/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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
};

/* Divides the reservation; hva is then an offset into it, not an address. */
static void lay_out(struct guest_mem *m, uint64_t hva[2])
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
	m->reserved_len += HUGE; /* room to align the start */
}

static int map_regions(struct guest_mem *m, struct err *e)
{
	uint64_t offset[2];
	uint8_t *base;

	lay_out(m, offset);
	m->reserved = mmap(NULL, m->reserved_len, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->reserved == MAP_FAILED)
		return err_sys(e, errno, "reserve %" PRIu64 " MiB of address space",
			       m->reserved_len >> 20);
	base = m->reserved;
	base += align_up((uintptr_t)base, HUGE) - (uintptr_t)base;

	for (unsigned i = 0; i < m->regions; i++) {
		struct mem_region *r = &m->region[i];

		r->hva = mmap(base + offset[i], r->size, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_FIXED | MAP_NORESERVE, m->fd, r->fd_offset);
		if (r->hva == MAP_FAILED)
			return err_sys(e, errno, "map %" PRIu64 " MiB", r->size >> 20);
		/* Both are wishes: kernels without huge pages refuse the first. */
		madvise(r->hva, r->size, MADV_HUGEPAGE);
		madvise(r->hva, r->size, MADV_DONTDUMP);
	}
	return 0;
}

static int open_ram(struct guest_mem *m, struct err *e)
{
	m->fd = memfd_create("holon-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (m->fd < 0)
		return err_sys(e, errno, "memfd");
	if (ftruncate(m->fd, m->size) < 0)
		return err_sys(e, errno, "memfd of %" PRIu64 " MiB", m->size >> 20);
	/* The file may be shared with other processes; none may cut it under us. */
	if (fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return err_sys(e, errno, "seal memfd");
	return map_regions(m, e);
}

int mem_new(struct guest_mem **out, uint64_t ram_bytes, struct err *e)
{
	struct guest_mem *m;
	int r;

	if (ram_bytes < RAM_MIN || ram_bytes > RAM_MAX)
		return err_set(e, EINVAL, "guest RAM of %" PRIu64 " KiB: must be 1 MiB to 64 TiB",
			       ram_bytes >> 10);
	m = calloc(1, sizeof *m);
	if (!m)
		return err_sys(e, ENOMEM, "guest RAM");
	m->fd = -1;
	m->reserved = MAP_FAILED;
	m->size = align_up(ram_bytes, PAGE);
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
	if (m->fd >= 0)
		close(m->fd);
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

void *mem_span(const struct guest_mem *m, gpa_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < m->regions; i++) {
		const struct mem_region *r = &m->region[i];
		uint64_t offset = gpa - r->gpa; /* wraps to something large below the region */

		if (offset < r->size && len <= r->size - offset)
			return r->hva + offset;
	}
	return NULL;
}

int mem_read(const struct guest_mem *m, gpa_t gpa, void *to, uint64_t len)
{
	const void *p = mem_span(m, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(to, p, len);
	return 0;
}

int mem_write(const struct guest_mem *m, gpa_t gpa, const void *from, uint64_t len)
{
	void *p = mem_span(m, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(p, from, len);
	return 0;
}
