/* pci: the capabilities, the device status machine, interrupts, kicks, and the ways between the
 * vCPUs' threads and the device's I/O thread. The registers are in pci_regs.c.
 *
 * Whether the device should run follows from status, resetting and paused. Whoever changes
 * these posts sync to the I/O thread, which starts or stops the device as they are by then;
 * when it has stopped, and should not run again, the reset that waited for this is done. */
#include "virtio/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "virtio/pci_priv.h"

#define VENDOR         0x1af4
#define DEVICE_ID_BASE 0x1040
#define SUBSYSTEM      0x1100
#define INTX_PIN       1

#define CAP_COMMON_CFG 1u
#define CAP_NOTIFY_CFG 2u
#define CAP_ISR_CFG    3u
#define CAP_DEVICE_CFG 4u
#define CAP_PCI_CFG    5u

/* struct virtio_pci_cap */
#define CAP_LEN_AT   2
#define CAP_TYPE_AT  3
#define CAP_BAR_AT   4
#define CAP_OFF_AT   8
#define CAP_SIZE_AT  12
#define CAP_EXTRA_AT 16 /* notify_off_multiplier, or pci_cfg_data */
#define CAP_LEN      16u
#define CAP_LONG_LEN 20u

static struct virtio_pci *of_device(struct device *d)
{
	return container_of(d, struct virtio_pci, dev);
}

static struct virtio_pci *of_transport(struct virtio_transport *t)
{
	return container_of(t, struct virtio_pci, transport);
}

struct device *virtio_pci_device(struct virtio_pci *v)
{
	return &v->dev;
}

struct virtio_device *virtio_pci_virtio(struct virtio_pci *v)
{
	return v->vd;
}

/* --- interrupts: any thread --- */

static void interrupt(struct virtio_pci *v, uint16_t vector, uint8_t isr)
{
	if (pci_msix_send(&v->pci, vector))
		return;
	AUTO_LOCK(&v->isr_lock);
	v->isr |= isr;
	pci_irq(&v->pci, true);
}

static void queue_irq(struct virtio_transport *t, unsigned n)
{
	struct virtio_pci *v = of_transport(t);

	interrupt(v, atomic_load_explicit(&v->queue_vector[n], memory_order_relaxed), ISR_QUEUE);
}

static void config_irq(struct virtio_transport *t)
{
	struct virtio_pci *v = of_transport(t);

	interrupt(v, atomic_load_explicit(&v->config_vector, memory_order_relaxed), ISR_CONFIG);
}

/* --- kicks --- */

void virtio_pci_kick(struct virtio_pci *v, unsigned queue)
{
	uint64_t one = 1;

	if (queue >= v->vd->queues ||
	    atomic_exchange_explicit(&v->kick[queue].pending, true, memory_order_acq_rel))
		return;
	/* Cannot fail: the counter would have to pass 2^64. */
	(void)!write(v->kick[queue].fd.fd, &one, sizeof one);
}

static void kicked(struct loop_fd *f, uint32_t events)
{
	struct kick *k = container_of(f, struct kick, fd);

	/* First this, then the look into the queue: pairs with the exchange in virtio_pci_kick,
	 * before which the driver filled the queue. A kick that finds pending set is seen by
	 * this look; one that does not, writes again. */
	atomic_exchange_explicit(&k->pending, false, memory_order_acq_rel);
	virtio_kick(k->v->vd, (unsigned)(k - k->v->kick));
}

/* --- life; called with lock held unless they say otherwise --- */

static bool should_run(const struct virtio_pci *v)
{
	return (v->status & STATUS_DRIVER_OK) && !v->resetting && !v->paused;
}

/* All that the guest set, as after power on. The device has stopped. */
static void forget(struct virtio_pci *v)
{
	virtio_reset(v->vd);
	v->device_select = v->driver_select = 0;
	v->driver_features = 0;
	v->queue_select = 0;
	v->status = 0;
	v->resetting = false;
	v->config_vector = NO_VECTOR;
	for (unsigned i = 0; i < v->vd->queues; i++)
		v->queue_vector[i] = NO_VECTOR;
	AUTO_LOCK(&v->isr_lock);
	v->isr = 0;
	pci_irq(&v->pci, false);
}

void virtio_pci_update(struct virtio_pci *v)
{
	if (!v->active && !should_run(v)) {
		if (v->resetting)
			forget(v);
		return;
	}
	v->active = true;
	if (!v->posted)
		loop_post(v->vd->env.loop, &v->sync);
	v->posted = true;
}

/* I/O thread, no lock held. */
static void sync_device(struct loop_call *call)
{
	struct virtio_pci *v = container_of(call, struct virtio_pci, sync);
	bool run;

	pthread_mutex_lock(&v->lock);
	v->posted = false;
	run = should_run(v);
	pthread_mutex_unlock(&v->lock);
	if (run)
		virtio_start(v->vd);
	else
		virtio_stop(v->vd);
}

static void check_paused(struct virtio_pci *v)
{
	if (!v->when_paused || v->active)
		return;
	loop_post(v->vd->env.loop, v->when_paused);
	v->when_paused = NULL;
}

/* I/O thread, no lock held. */
static void stopped(struct virtio_transport *t)
{
	struct virtio_pci *v = of_transport(t);
	AUTO_LOCK(&v->lock);

	v->active = false;
	virtio_pci_update(v);
	check_paused(v);
	pthread_cond_broadcast(&v->changed);
}

static bool accepts(const struct virtio_pci *v)
{
	return !(v->driver_features & ~v->vd->offered) && (v->driver_features & VIRTIO_F_VERSION_1);
}

void virtio_pci_status_written(struct virtio_pci *v, uint8_t status)
{
	if (status == 0) {
		v->resetting = true;
		virtio_pci_update(v);
		return;
	}
	if (!(v->status & STATUS_FEATURES_OK) && (status & STATUS_FEATURES_OK)) {
		if (accepts(v))
			v->vd->features = v->driver_features;
		else
			status &= ~STATUS_FEATURES_OK;
	}
	if (!((v->status | status) & STATUS_FEATURES_OK))
		status &= ~STATUS_DRIVER_OK;
	v->status |= status & ~STATUS_NEEDS_RESET; /* a driver clears bits by a reset only */
	virtio_pci_update(v);
}

void virtio_pci_pause(struct virtio_pci *v)
{
	AUTO_LOCK(&v->lock);

	v->paused = true;
	virtio_pci_update(v);
}

void virtio_pci_vanish(struct virtio_pci *v, bool pulled)
{
	if (pulled)
		pci_pull(&v->pci);
	else
		pci_detach(&v->pci);
}

void virtio_pci_pause_then(struct virtio_pci *v, struct loop_call *call)
{
	AUTO_LOCK(&v->lock);

	v->paused = true;
	v->when_paused = call;
	virtio_pci_update(v);
	check_paused(v);
}

void virtio_pci_wait_paused(struct virtio_pci *v)
{
	AUTO_LOCK(&v->lock);

	while (v->active)
		pthread_cond_wait(&v->changed, &v->lock);
}

void virtio_pci_resume(struct virtio_pci *v)
{
	AUTO_LOCK(&v->lock);

	v->paused = false;
	virtio_pci_update(v);
}

/* --- the function on the bus --- */

static uint64_t bar_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return virtio_pci_read(container_of(r, struct virtio_pci, bar), offset, size);
}

static void bar_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	virtio_pci_write(container_of(r, struct virtio_pci, bar), offset, value, size);
}

/* What the guest chose in the capability by which it reaches the BAR through configuration
 * space (4.1.4.9): false when that is nonsense. */
static bool cfg_window(const struct virtio_pci *v, unsigned *offset, unsigned *size)
{
	const uint8_t *cap = v->pci.config + v->cfg_cap;
	uint32_t off = load_le(cap + CAP_OFF_AT, 4), len = load_le(cap + CAP_SIZE_AT, 4);

	*offset = off;
	*size = len;
	return cap[CAP_BAR_AT] == 0 && (len == 1 || len == 2 || len == 4) && off % len == 0 &&
	       off < BAR_LEN;
}

static bool hits_data(const struct virtio_pci *v, unsigned offset, unsigned len)
{
	unsigned data = v->cfg_cap + CAP_EXTRA_AT;

	return offset < data + 4 && offset + len > data;
}

static void config_reading(struct pci_device *p, unsigned offset, unsigned len)
{
	struct virtio_pci *v = container_of(p, struct virtio_pci, pci);
	unsigned at, size;

	if (hits_data(v, offset, len) && cfg_window(v, &at, &size))
		store_le(p->config + v->cfg_cap + CAP_EXTRA_AT, virtio_pci_read(v, at, size), size);
}

static void config_written(struct pci_device *p, unsigned offset, unsigned len)
{
	struct virtio_pci *v = container_of(p, struct virtio_pci, pci);
	unsigned at, size;

	if (hits_data(v, offset, len) && cfg_window(v, &at, &size))
		virtio_pci_write(v, at, load_le(p->config + v->cfg_cap + CAP_EXTRA_AT, size), size);
}

static int add_cap(struct virtio_pci *v, uint8_t type, uint8_t len, uint32_t at, uint32_t size)
{
	int cap = pci_add_cap(&v->pci, PCI_CAP_VENDOR, len);

	if (cap < 0)
		return cap;
	v->pci.config[cap + CAP_LEN_AT] = len;
	v->pci.config[cap + CAP_TYPE_AT] = type;
	store_le(v->pci.config + cap + CAP_OFF_AT, at, 4);
	store_le(v->pci.config + cap + CAP_SIZE_AT, size, 4);
	return cap;
}

static int add_caps(struct virtio_pci *v)
{
	unsigned notify_len = v->vd->queues * NOTIFY_STRIDE;
	int notify, cfg;

	if (add_cap(v, CAP_COMMON_CFG, CAP_LEN, PLACE_COMMON, COMMON_LEN) < 0 ||
	    add_cap(v, CAP_ISR_CFG, CAP_LEN, PLACE_ISR, 1) < 0 ||
	    add_cap(v, CAP_DEVICE_CFG, CAP_LEN, PLACE_DEVICE, VIRTIO_CONFIG_MAX) < 0)
		return -ENOSPC;
	notify = add_cap(v, CAP_NOTIFY_CFG, CAP_LONG_LEN, PLACE_NOTIFY, notify_len);
	cfg = add_cap(v, CAP_PCI_CFG, CAP_LONG_LEN, 0, 0);
	if (notify < 0 || cfg < 0)
		return -ENOSPC;
	store_le(v->pci.config + notify + CAP_EXTRA_AT, NOTIFY_STRIDE, 4);
	v->cfg_cap = cfg;
	v->pci.writable[cfg + CAP_BAR_AT] = 0xff;
	memset(v->pci.writable + cfg + CAP_OFF_AT, 0xff, 12); /* offset, length, data */
	return pci_add_msix(&v->pci, 1, v->vd->queues + 1);
}

static int make_function(struct virtio_pci *v, struct err *e)
{
	const struct pci_ids ids = {
		.vendor = VENDOR,
		.device = DEVICE_ID_BASE + v->vd->type->id,
		.subsystem_vendor = VENDOR,
		.subsystem = SUBSYSTEM,
		.class = v->vd->type->pci_class,
		.revision = 1,
	};

	pci_init(&v->pci, &ids);
	v->pci.reading = config_reading;
	v->pci.written = config_written;
	v->bar = (struct bus_region){
		"virtio",
		1,
		4,
		bar_read,
		bar_write,
		.events = v->event,
		.event_count = v->vd->queues,
	};
	pci_add_bar(&v->pci, 0, PCI_BAR_MEM32, BAR_LEN, &v->bar);
	pci_add_intx(&v->pci, INTX_PIN);
	return add_caps(v) < 0 ? err_set(e, ENOMEM, "PCI function") : 0;
}

static int add_kick(struct virtio_pci *v, unsigned n, struct err *e)
{
	struct kick *k = &v->kick[n];
	int r;

	k->v = v;
	k->fd = (struct loop_fd){eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), kicked};
	if (k->fd.fd < 0)
		return err_sys(e, errno, "eventfd");
	v->event[n] = (struct bus_event){PLACE_NOTIFY + n * NOTIFY_STRIDE, k->fd.fd};
	r = loop_add(v->vd->env.loop, &k->fd, EPOLLIN | EPOLLET, e);
	if (r < 0)
		close(k->fd.fd);
	else
		v->kicks = n + 1;
	return r;
}

static const struct device_type virtio_pci_type;

int virtio_pci_new(struct virtio_pci **out, struct virtio_device *vd, struct device *pci_host,
		   uint8_t devfn, struct err *e)
{
	struct virtio_pci *v = calloc(1, sizeof *v);
	int r = 0;

	if (!v) {
		vd->type->free(vd);
		return err_set(e, ENOMEM, "%s", vd->type->name);
	}
	v->dev = (struct device){&virtio_pci_type, devfn};
	v->vd = vd;
	v->transport = (struct virtio_transport){queue_irq, config_irq, stopped};
	v->sync.run = sync_device;
	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->isr_lock, NULL);
	pthread_cond_init(&v->changed, NULL);
	r = make_function(v, e);
	for (unsigned i = 0; i < vd->queues && r >= 0; i++)
		r = add_kick(v, i, e);
	forget(v);
	vd->transport = &v->transport;
	/* Last: a guest that runs can reach it from here on. */
	if (r >= 0)
		r = pci_attach(pci_host, &v->pci, devfn, e);
	if (r < 0) {
		err_wrap(e, "%s", vd->type->name);
		virtio_pci_type.free(&v->dev);
		return r;
	}
	*out = v;
	return 0;
}

/* --- as a device of the machine --- */

static void virtio_pci_reset(struct device *d)
{
	struct virtio_pci *v = of_device(d);
	bool was_paused = v->paused;

	virtio_pci_pause(v);
	virtio_pci_wait_paused(v);
	pthread_mutex_lock(&v->lock);
	forget(v);
	v->paused = was_paused;
	pthread_mutex_unlock(&v->lock);
	pci_reset(&v->pci);
}

static void state_vectors(struct virtio_pci *v, struct state *s)
{
	uint8_t bytes[2 * (VIRTIO_QUEUES_MAX + 1)];
	unsigned n = v->vd->queues;

	for (unsigned i = 0; i <= n; i++)
		store_le(bytes + 2 * i, i < n ? v->queue_vector[i] : v->config_vector, 2);
	state_bytes(s, "vectors", bytes, 2 * (n + 1));
	for (unsigned i = 0; i <= n; i++) {
		uint16_t vector = load_le(bytes + 2 * i, 2);

		if (vector >= v->pci.msix.vectors)
			vector = NO_VECTOR;
		if (i < n)
			v->queue_vector[i] = vector;
		else
			v->config_vector = vector;
	}
}

/* A state that no driver can have brought about. */
static void check_loaded(struct virtio_pci *v, struct state *s, uint16_t id)
{
	if (id != v->vd->type->id)
		state_fail(s, "device type %u: this is a %s", id, v->vd->type->name);
	else if ((v->status & STATUS_DRIVER_OK) && !(v->status & STATUS_FEATURES_OK))
		state_fail(s, "status 0x%x: DRIVER_OK without FEATURES_OK", v->status);
	v->status &= ~STATUS_NEEDS_RESET;
	v->isr &= ISR_QUEUE | ISR_CONFIG;
}

/* The device is paused or was never started. What is running after it was loaded begins with
 * virtio_pci_resume. */
static void virtio_pci_state(struct device *d, struct state *s)
{
	struct virtio_pci *v = of_device(d);
	uint16_t id = v->vd->type->id;
	AUTO_LOCK(&v->lock);

	state_u16(s, "id", &id);
	state_u32(s, "device_select", &v->device_select);
	state_u32(s, "driver_select", &v->driver_select);
	state_u64(s, "driver_features", &v->driver_features);
	state_u16(s, "queue_select", &v->queue_select);
	state_u8(s, "status", &v->status);
	state_u8(s, "isr", &v->isr);
	state_vectors(v, s);
	if (state_loading(s) && !state_failed(s))
		check_loaded(v, s, id);
	pci_state(&v->pci, s);
	virtio_state(v->vd, s);
}

static void virtio_pci_free(struct device *d)
{
	struct virtio_pci *v;

	if (!d)
		return;
	v = of_device(d);
	for (unsigned i = 0; i < v->kicks; i++) {
		loop_del(v->vd->env.loop, &v->kick[i].fd);
		close(v->kick[i].fd.fd);
	}
	pci_detach(&v->pci);
	pci_done(&v->pci);
	v->vd->type->free(v->vd);
	pthread_cond_destroy(&v->changed);
	pthread_mutex_destroy(&v->isr_lock);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static const struct device_type virtio_pci_type = {
	.name = "virtio-pci",
	.reset = virtio_pci_reset,
	.state = virtio_pci_state,
	.free = virtio_pci_free,
};
