/* bus: each space has a sorted table of routes with a fixed number of places. Updates
 * change it in place under a lock and a sequence count; a look-up that meets an update
 * starts over. So look-ups write nothing that other vCPUs read, and a guest that moves
 * PCI BARs for ever makes nothing grow. */
#include "bus/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#define MAX_ROUTES 1024
#define PIO_LAST   0xffff

/* Atomics, as look-ups read while an update writes (and then start over). */
struct route {
	_Atomic uint64_t base, last;
	_Atomic(struct bus_region *) region;
};

struct space {
	_Atomic uint32_t seq; /* odd during an update */
	_Atomic uint32_t count;
	struct route route[MAX_ROUTES]; /* by base, not overlapping */
};

struct bus {
	pthread_mutex_t lock; /* taken by updates only; guards watcher too */
	struct bus_watcher *watcher;
	struct space space[BUS_SPACES];
};

/* A route as copied out by a look-up. */
struct hit {
	uint64_t base, last;
	struct bus_region *region; /* NULL: nothing there */
};

int bus_new(struct bus **out, struct err *e)
{
	struct bus *b = calloc(1, sizeof *b);

	if (!b)
		return err_sys(e, ENOMEM, "bus");
	pthread_mutex_init(&b->lock, NULL);
	*out = b;
	return 0;
}

void bus_free(struct bus *b)
{
	if (!b)
		return;
	pthread_mutex_destroy(&b->lock);
	free(b);
}

/* --- updates; all static ones are called with b->lock held --- */

static uint64_t get(const _Atomic uint64_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

static void set_route(struct route *r, uint64_t base, uint64_t last, struct bus_region *region)
{
	/* Release: the odd seq, written before, is seen by whoever sees these. */
	atomic_store_explicit(&r->base, base, memory_order_release);
	atomic_store_explicit(&r->last, last, memory_order_release);
	atomic_store_explicit(&r->region, region, memory_order_release);
}

static void copy_route(struct route *to, const struct route *from)
{
	set_route(to, get(&from->base), get(&from->last),
		  atomic_load_explicit(&from->region, memory_order_relaxed));
}

static void begin_update(struct space *sp)
{
	atomic_fetch_add_explicit(&sp->seq, 1, memory_order_relaxed);
}

static void end_update(struct space *sp, uint32_t count)
{
	atomic_store_explicit(&sp->count, count, memory_order_release);
	atomic_fetch_add_explicit(&sp->seq, 1, memory_order_release);
}

/* Where a route with this base belongs: the first place whose base is larger. */
static uint32_t place_of(struct space *sp, uint64_t base)
{
	uint32_t i = 0;

	while (i < sp->count && get(&sp->route[i].base) <= base)
		i++;
	return i;
}

static bool is_width(unsigned n)
{
	return n == 1 || n == 2 || n == 4 || n == 8;
}

static unsigned min_size(const struct bus_region *r)
{
	return r->min_size ? r->min_size : 1;
}

static unsigned max_size(const struct bus_region *r)
{
	return r->max_size ? r->max_size : 8;
}

static bool is_sound(enum bus_space s, uint64_t base, uint64_t len, const struct bus_region *r)
{
	return is_width(min_size(r)) && is_width(max_size(r)) && min_size(r) <= max_size(r) &&
	       len && len % min_size(r) == 0 && base + (len - 1) >= base &&
	       (s != BUS_PIO || base + (len - 1) <= PIO_LAST);
}

static const char *name_of(struct route *r)
{
	struct bus_region *region = atomic_load_explicit(&r->region, memory_order_relaxed);

	return region->name ? region->name : "?";
}

/* Called with b->lock held. */
static int insert(struct space *sp, uint64_t base, uint64_t last, struct bus_region *r,
		  struct err *e)
{
	uint32_t n = sp->count, i = place_of(sp, base);

	if (i > 0 && get(&sp->route[i - 1].last) >= base)
		return err_set(e, EEXIST, "overlaps '%s'", name_of(&sp->route[i - 1]));
	if (i < n && get(&sp->route[i].base) <= last)
		return err_set(e, EEXIST, "overlaps '%s'", name_of(&sp->route[i]));
	if (n == MAX_ROUTES)
		return err_set(e, ENOSPC, "all %d places are taken", MAX_ROUTES);
	begin_update(sp);
	for (uint32_t k = n; k > i; k--)
		copy_route(&sp->route[k], &sp->route[k - 1]);
	set_route(&sp->route[i], base, last, r);
	end_update(sp, n + 1);
	return 0;
}

int bus_map(struct bus *b, enum bus_space s, uint64_t base, uint64_t len, struct bus_region *r,
	    struct err *e)
{
	int ret;

	if (is_sound(s, base, len, r)) {
		pthread_mutex_lock(&b->lock);
		ret = insert(&b->space[s], base, base + (len - 1), r, e);
		if (ret == 0 && b->watcher && r->event_count)
			b->watcher->mapped(b->watcher, s, base, r);
		pthread_mutex_unlock(&b->lock);
	} else {
		ret = err_set(e, EINVAL, "bad range or access sizes");
	}
	if (ret < 0)
		err_wrap(e, "map '%s' at %#" PRIx64 "+%#" PRIx64, r->name ? r->name : "?", base,
			 len);
	return ret;
}

static void remove_all(struct space *sp, const struct bus_region *r)
{
	uint32_t n = sp->count, kept = 0;

	begin_update(sp);
	for (uint32_t i = 0; i < n; i++)
		if (atomic_load_explicit(&sp->route[i].region, memory_order_relaxed) != r)
			copy_route(&sp->route[kept++], &sp->route[i]);
	end_update(sp, kept);
}

/* Tells the watcher of every place in s of r, or, if that is NULL, of all regions with events. */
static void tell(struct bus *b, enum bus_space s, const struct bus_region *r,
		 void (*what)(struct bus_watcher *w, enum bus_space s, uint64_t base,
			      const struct bus_region *r))
{
	struct space *sp = &b->space[s];

	for (uint32_t i = 0; i < sp->count; i++) {
		const struct bus_region *at =
			atomic_load_explicit(&sp->route[i].region, memory_order_relaxed);

		if (at->event_count && (!r || at == r))
			what(b->watcher, s, get(&sp->route[i].base), at);
	}
}

void bus_unmap(struct bus *b, struct bus_region *r)
{
	pthread_mutex_lock(&b->lock);
	for (int s = 0; s < BUS_SPACES; s++) {
		if (b->watcher && r->event_count)
			tell(b, s, r, b->watcher->unmapped);
		remove_all(&b->space[s], r);
	}
	pthread_mutex_unlock(&b->lock);
}

void bus_watch(struct bus *b, struct bus_watcher *w)
{
	pthread_mutex_lock(&b->lock);
	b->watcher = w;
	for (int s = 0; w && s < BUS_SPACES; s++)
		tell(b, s, NULL, w->mapped);
	pthread_mutex_unlock(&b->lock);
}

/* --- accesses --- */

/* The last route with base <= addr, if it reaches addr. What it reads during an update may
 * be nonsense; it stays inside the table all the same. */
static struct hit search(struct space *sp, uint64_t addr)
{
	uint32_t lo = 0, hi = atomic_load_explicit(&sp->count, memory_order_acquire);
	struct hit h = {.region = NULL};

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (atomic_load_explicit(&sp->route[mid].base, memory_order_acquire) <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo) {
		struct route *r = &sp->route[lo - 1];

		h.base = atomic_load_explicit(&r->base, memory_order_acquire);
		h.last = atomic_load_explicit(&r->last, memory_order_acquire);
		if (addr <= h.last)
			h.region = atomic_load_explicit(&r->region, memory_order_acquire);
	}
	return h;
}

static struct hit look_up(struct space *sp, uint64_t addr)
{
	struct hit h;
	uint32_t seq;

	do {
		seq = atomic_load_explicit(&sp->seq, memory_order_acquire);
		h = search(sp, addr);
	} while ((seq & 1) || seq != atomic_load_explicit(&sp->seq, memory_order_relaxed));
	return h;
}

/* How many of the next left bytes at offset go to the region in one call: the widest
 * naturally aligned piece that it takes. */
static unsigned piece(const struct hit *h, uint64_t offset, unsigned left)
{
	uint64_t room = h->last - h->base - offset; /* minus one */
	unsigned n = max_size(h->region);

	while (n > 1 && (n > left || n - 1 > room || offset % n))
		n /= 2;
	return n;
}

static uint64_t call_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return trunc_bytes(r->read ? r->read(r, offset, size) : UINT64_MAX, size);
}

static uint64_t region_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	unsigned shift = offset % min_size(r) * 8;

	if (size >= min_size(r))
		return call_read(r, offset, size);
	return call_read(r, align_down(offset, min_size(r)), min_size(r)) >> shift;
}

static void region_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	unsigned shift = offset % min_size(r) * 8;
	uint64_t mask = trunc_bytes(UINT64_MAX, size) << shift, word;

	if (!r->write)
		return;
	if (size < min_size(r)) {
		offset = align_down(offset, min_size(r));
		word = call_read(r, offset, min_size(r));
		value = (word & ~mask) | (value << shift & mask);
		size = min_size(r);
	}
	r->write(r, offset, trunc_bytes(value, size), size);
}

uint64_t bus_read(struct bus *b, enum bus_space s, uint64_t addr, unsigned size)
{
	uint64_t v = 0;
	unsigned n;

	for (unsigned done = 0; done < size; done += n) {
		struct hit h = look_up(&b->space[s], addr + done);
		uint64_t part = 0xff;

		n = 1;
		if (h.region) {
			uint64_t offset = addr + done - h.base;

			n = piece(&h, offset, size - done);
			part = trunc_bytes(region_read(h.region, offset, n), n);
		}
		v |= part << done * 8;
	}
	return v;
}

void bus_write(struct bus *b, enum bus_space s, uint64_t addr, uint64_t value, unsigned size)
{
	unsigned n;

	for (unsigned done = 0; done < size; done += n) {
		struct hit h = look_up(&b->space[s], addr + done);

		n = 1;
		if (h.region) {
			uint64_t offset = addr + done - h.base;

			n = piece(&h, offset, size - done);
			region_write(h.region, offset, value >> done * 8, n);
		}
	}
}
