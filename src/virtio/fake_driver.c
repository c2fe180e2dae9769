/* fake_driver: see the header. Written from the driver's sections of the specification (2.7.13,
 * 2.7.14, 2.8.21, 2.8.22), not from the device's side, so that each checks the other. */
#include "virtio/fake_driver.h"

#include <assert.h>
#include <string.h>

#define DESC_LEN   16
#define FLAG_AVAIL (1u << 7)
#define FLAG_USED  (1u << 15)

void *fake_at(struct fake_driver *f, gpa_t gpa, uint64_t len)
{
	void *p = mem_span(f->mem, gpa, len);

	assert(p && "a test's address is not RAM");
	return p;
}

static _Atomic uint16_t *at16(struct fake_driver *f, gpa_t gpa)
{
	return fake_at(f, gpa, 2);
}

static uint16_t load16(struct fake_driver *f, gpa_t gpa)
{
	return atomic_load_explicit(at16(f, gpa), memory_order_acquire);
}

static void store16(struct fake_driver *f, gpa_t gpa, uint16_t v)
{
	atomic_store_explicit(at16(f, gpa), v, memory_order_release);
}

static uint32_t load32(struct fake_driver *f, gpa_t gpa)
{
	return atomic_load_explicit((_Atomic uint32_t *)fake_at(f, gpa, 4), memory_order_acquire);
}

static void store32(struct fake_driver *f, gpa_t gpa, uint32_t v)
{
	atomic_store_explicit((_Atomic uint32_t *)fake_at(f, gpa, 4), v, memory_order_release);
}

struct fake_driver fake_driver_make(struct guest_mem *mem, const struct fake_opts *o)
{
	gpa_t at = o->at ? o->at : FAKE_RINGS;
	struct fake_driver f = {
		.mem = mem,
		.size = o->size ? o->size : 8,
		.packed = o->packed,
		.event_idx = o->event_idx,
		.desc = at,
		.driver = at + DESC_LEN * VIRTQ_SIZE_MAX,
		.device = at + DESC_LEN * VIRTQ_SIZE_MAX + 0x1000,
		.avail_wrap = true,
		.used_wrap = true,
	};

	f.free = f.size;
	memset(fake_at(&f, at, FAKE_RINGS_LEN), 0, FAKE_RINGS_LEN);
	return f;
}

void fake_connect(struct fake_driver *f, struct virtq *q)
{
	*virtq_setup(q) = (struct virtq_setup){f->size, true, f->desc, f->driver, f->device};
}

/* --- chains --- */

static unsigned flags_of(const struct fake_buf *b, bool more)
{
	return (b->in ? FAKE_WRITE : 0) | (more ? FAKE_NEXT : 0);
}

static void write_words(struct fake_driver *f, gpa_t gpa, uint64_t addr, uint64_t rest)
{
	uint8_t *p = fake_at(f, gpa, DESC_LEN);

	store_le(p, addr, 8);
	store_le(p + 8, rest, 8);
}

static uint64_t split_rest(uint32_t len, unsigned flags, unsigned next)
{
	return len | (uint64_t)flags << 32 | (uint64_t)next << 48;
}

static uint64_t packed_rest(uint32_t len, unsigned id, unsigned flags)
{
	return len | (uint64_t)id << 32 | (uint64_t)flags << 48;
}

static unsigned avail_flags(bool wrap)
{
	return wrap ? FLAG_AVAIL : FLAG_USED;
}

static int free_desc(struct fake_driver *f)
{
	for (unsigned i = 0; i < f->size; i++)
		if (!f->busy[i])
			return (int)i;
	return -1;
}

static void split_show(struct fake_driver *f, uint16_t head)
{
	store16(f, f->driver + 4 + 2 * (f->avail % f->size), head);
	store16(f, f->driver + 2, ++f->avail);
	f->added++;
}

static int split_add(struct fake_driver *f, const struct fake_buf *b, unsigned n, unsigned extra)
{
	int head = -1, last = -1;

	for (unsigned i = 0; i < n; i++) {
		int at = free_desc(f);

		f->busy[at] = true;
		write_words(f, f->desc + DESC_LEN * (unsigned)at, b[i].gpa,
			    split_rest(b[i].len, flags_of(&b[i], i + 1 < n) | extra, 0));
		if (last >= 0)
			store16(f, f->desc + DESC_LEN * (unsigned)last + 14, at);
		else
			head = at;
		last = at;
	}
	split_show(f, head);
	return head;
}

static int free_id(const struct fake_driver *f)
{
	for (unsigned i = 0; i < f->size; i++)
		if (!f->len[i])
			return (int)i;
	return -1;
}

static void packed_advance(const struct fake_driver *f, uint16_t *at, bool *wrap, unsigned n)
{
	*at += n;
	if (*at >= f->size) {
		*at -= f->size;
		*wrap = !*wrap;
	}
}

/* All but the flags, which the device may be looking at. */
static void packed_write(struct fake_driver *f, gpa_t at, const struct fake_buf *b, unsigned id)
{
	uint8_t *p = fake_at(f, at, DESC_LEN);

	store_le(p, b->gpa, 8);
	store_le(p + 8, b->len, 4);
	store_le(p + 12, id, 2);
}

/* The first descriptor's flags are written when all the rest is there. */
static int packed_add(struct fake_driver *f, const struct fake_buf *b, unsigned n, unsigned extra)
{
	int id = free_id(f);
	uint16_t first = f->avail;
	unsigned first_flags = 0;

	for (unsigned i = 0; i < n; i++) {
		gpa_t at = f->desc + DESC_LEN * f->avail;
		unsigned flags = flags_of(&b[i], i + 1 < n) | extra | avail_flags(f->avail_wrap);

		packed_write(f, at, &b[i], id);
		if (i)
			store16(f, at + 14, flags);
		else
			first_flags = flags;
		packed_advance(f, &f->avail, &f->avail_wrap, 1);
	}
	store16(f, f->desc + DESC_LEN * first + 14, first_flags);
	f->added += n;
	return id;
}

static int add(struct fake_driver *f, const struct fake_buf *b, unsigned n, unsigned extra)
{
	int id;

	if (n > f->free)
		return -1;
	id = f->packed ? packed_add(f, b, n, extra) : split_add(f, b, n, extra);
	f->len[id] = n;
	f->free -= n;
	return id;
}

int fake_add_chain(struct fake_driver *f, const struct fake_buf *b, unsigned n)
{
	return add(f, b, n, 0);
}

int fake_add_table(struct fake_driver *f, gpa_t table, const struct fake_buf *b, unsigned n)
{
	const struct fake_buf whole = {table, DESC_LEN * n, false};

	for (unsigned i = 0; i < n; i++) {
		unsigned flags = flags_of(&b[i], i + 1 < n);

		write_words(f, table + DESC_LEN * i, b[i].gpa,
			    f->packed ? packed_rest(b[i].len, 0, flags & FAKE_WRITE)
				      : split_rest(b[i].len, flags, i + 1));
	}
	return add(f, &whole, 1, FAKE_INDIRECT);
}

static bool passed(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

static bool packed_wants_kick(struct fake_driver *f, uint16_t old)
{
	uint32_t wish = load32(f, f->device);
	uint16_t event = wish & 0x7fff;

	if (wish >> 16 != 2)
		return wish >> 16 == 0;
	if (!!(wish & 0x8000) != f->avail_wrap)
		event -= f->size;
	return passed(event, f->avail, old);
}

bool fake_wants_kick(struct fake_driver *f)
{
	uint16_t old = f->avail - f->added;

	if (!f->added)
		return false;
	f->added = 0;
	/* What was added, then the device's wish: pairs with the fence in virtq_kicks_on. */
	atomic_thread_fence(memory_order_seq_cst);
	if (f->packed)
		return packed_wants_kick(f, old);
	if (f->event_idx)
		return passed(load16(f, f->device + 4 + 8 * f->size), f->avail, old);
	return !(load16(f, f->device) & 1);
}

/* --- used --- */

static void give_back(struct fake_driver *f, uint16_t id)
{
	f->free += f->len[id];
	for (unsigned n = f->len[id], i = id; !f->packed && n; n--) {
		f->busy[i] = false;
		i = load16(f, f->desc + DESC_LEN * i + 14) % f->size;
	}
	f->len[id] = 0;
}

static bool split_take(struct fake_driver *f, struct fake_used *u)
{
	gpa_t at = f->device + 4 + 8 * (f->used % f->size);

	if (load16(f, f->device + 2) == f->used)
		return false;
	u->id = load32(f, at);
	u->len = load32(f, at + 4);
	f->used++;
	return true;
}

static bool packed_take(struct fake_driver *f, struct fake_used *u)
{
	gpa_t at = f->desc + DESC_LEN * f->used;
	unsigned flags = load16(f, at + 14);

	if (!!(flags & FLAG_AVAIL) != f->used_wrap || !!(flags & FLAG_USED) != f->used_wrap)
		return false;
	u->id = load16(f, at + 12);
	u->len = load32(f, at + 8);
	packed_advance(f, &f->used, &f->used_wrap, u->id < f->size ? f->len[u->id] : 0);
	return true;
}

bool fake_take(struct fake_driver *f, struct fake_used *u)
{
	if (!(f->packed ? packed_take(f, u) : split_take(f, u)))
		return false;
	assert(u->id < f->size && f->len[u->id] && "the device gives back what it has not");
	give_back(f, u->id);
	return true;
}

void fake_irq_off(struct fake_driver *f)
{
	if (f->packed)
		store32(f, f->driver, 1u << 16);
	else if (f->event_idx)
		store16(f, f->driver + 4 + 2 * f->size, f->used - 1);
	else
		store16(f, f->driver, 1);
}

void fake_irq_on(struct fake_driver *f)
{
	if (f->packed)
		store32(f, f->driver, 0);
	else
		store16(f, f->driver, 0);
	if (f->event_idx)
		fake_irq_after(f, 1);
}

void fake_irq_after(struct fake_driver *f, uint16_t n)
{
	uint16_t at = f->used;
	bool wrap = f->used_wrap;

	if (f->packed) {
		packed_advance(f, &at, &wrap, n - 1);
		store32(f, f->driver, 2u << 16 | (wrap ? 0x8000u : 0) | at);
	} else {
		store16(f, f->driver + 4 + 2 * f->size, f->used + n - 1);
	}
	atomic_thread_fence(memory_order_seq_cst); /* as virtq_publish's */
}

/* --- anything --- */

void fake_write_desc(struct fake_driver *f, unsigned i, const struct fake_desc *d)
{
	write_words(f, f->desc + DESC_LEN * i, d->addr,
		    f->packed ? packed_rest(d->len, d->id, d->flags)
			      : split_rest(d->len, d->flags, d->next));
}

void fake_show(struct fake_driver *f, uint16_t head, uint16_t n)
{
	if (!f->packed) {
		split_show(f, head);
		return;
	}
	for (unsigned i = n; i-- > 0;) {
		gpa_t at = f->desc + DESC_LEN * ((head + i) % f->size) + 14;
		bool wrap = head + i < f->size ? f->avail_wrap : !f->avail_wrap;

		store16(f, at, (load16(f, at) & ~(FLAG_AVAIL | FLAG_USED)) | avail_flags(wrap));
	}
	f->added += n;
}

/* --- a whole device --- */

static void note_queue_irq(struct virtio_transport *t, unsigned n)
{
	atomic_fetch_add(&container_of(t, struct fake_guest, transport)->irqs[n], 1);
}

static void note_config_irq(struct virtio_transport *t)
{
	atomic_fetch_add(&container_of(t, struct fake_guest, transport)->config_irqs, 1);
}

static void note_stopped(struct virtio_transport *t)
{
	atomic_fetch_add(&container_of(t, struct fake_guest, transport)->stops, 1);
}

void fake_guest_connect(struct fake_guest *g, struct virtio_device *d,
			const struct fake_guest_opts *o)
{
	*g = (struct fake_guest){
		.transport = {note_queue_irq, note_config_irq, note_stopped},
		.d = d,
	};
	d->transport = &g->transport;
	d->features = d->offered & (o->features | VIRTIO_F_VERSION_1);
	for (unsigned i = 0; i < d->queues; i++) {
		g->q[i] = fake_driver(d->env.mem,
				      .size = o->size ? o->size : virtq_size_max(d->queue[i]),
				      .packed = virtio_has(d, VIRTIO_F_RING_PACKED),
				      .event_idx = virtio_has(d, VIRTIO_F_EVENT_IDX),
				      .at = (o->at ? o->at : FAKE_RINGS) + i * FAKE_RINGS_LEN);
		fake_connect(&g->q[i], d->queue[i]);
	}
}

bool fake_guest_stop(struct fake_guest *g)
{
	unsigned before = atomic_load(&g->stops);

	virtio_stop(g->d);
	return atomic_load(&g->stops) != before;
}
