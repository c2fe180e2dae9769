/* pci_regs: the registers in BAR 0 (virtio 1.2, 4.1.4.3 and following). A read of the common
 * configuration is cut out of an image of all of it. A write counts only in the field's own
 * width, or by halves where that is 64 bits (4.1.3.1). */
#include <string.h>

#include "base/auto.h"
#include "virtio/pci_priv.h"

#define DEVICE_FEATURE_SELECT 0x00
#define DEVICE_FEATURE        0x04
#define DRIVER_FEATURE_SELECT 0x08
#define DRIVER_FEATURE        0x0c
#define CONFIG_VECTOR         0x10
#define NUM_QUEUES            0x12
#define DEVICE_STATUS         0x14
#define CONFIG_GENERATION     0x15
#define QUEUE_SELECT          0x16
#define QUEUE_SIZE            0x18
#define QUEUE_VECTOR          0x1a
#define QUEUE_ENABLE          0x1c
#define QUEUE_NOTIFY_OFF      0x1e
#define QUEUE_DESC            0x20
#define QUEUE_DRIVER          0x28
#define QUEUE_DEVICE          0x30

/* The setup of the selected queue; NULL: there is none. */
static struct virtq_setup *selected(struct virtio_pci *v)
{
	return v->queue_select < v->vd->queues ? virtq_setup(v->vd->queue[v->queue_select]) : NULL;
}

static uint32_t half(uint64_t features, uint32_t select)
{
	return select < 2 ? features >> (32 * select) : 0;
}

static uint8_t status_now(const struct virtio_pci *v)
{
	bool broken = atomic_load_explicit(&v->vd->needs_reset, memory_order_relaxed);

	return v->status | (broken && v->status ? STATUS_NEEDS_RESET : 0);
}

static uint8_t generation(struct virtio_pci *v)
{
	AUTO_LOCK(&v->vd->config_lock);

	return v->vd->config_generation;
}

static void fill_queue(struct virtio_pci *v, const struct virtq_setup *q, uint8_t *image)
{
	store_le(image + QUEUE_SIZE, q->size, 2);
	store_le(image + QUEUE_VECTOR, v->queue_vector[v->queue_select], 2);
	store_le(image + QUEUE_ENABLE, q->enabled, 2);
	store_le(image + QUEUE_NOTIFY_OFF, v->queue_select, 2);
	store_le(image + QUEUE_DESC, q->desc, 8);
	store_le(image + QUEUE_DRIVER, q->driver, 8);
	store_le(image + QUEUE_DEVICE, q->device, 8);
}

static uint64_t common_read(struct virtio_pci *v, unsigned offset, unsigned size)
{
	uint8_t image[COMMON_LEN] = {};
	const struct virtq_setup *q;
	AUTO_LOCK(&v->lock);

	store_le(image + DEVICE_FEATURE_SELECT, v->device_select, 4);
	store_le(image + DEVICE_FEATURE, half(v->vd->offered, v->device_select), 4);
	store_le(image + DRIVER_FEATURE_SELECT, v->driver_select, 4);
	store_le(image + DRIVER_FEATURE, half(v->driver_features, v->driver_select), 4);
	store_le(image + CONFIG_VECTOR, v->config_vector, 2);
	store_le(image + NUM_QUEUES, v->vd->queues, 2);
	image[DEVICE_STATUS] = status_now(v);
	image[CONFIG_GENERATION] = generation(v);
	store_le(image + QUEUE_SELECT, v->queue_select, 2);
	store_le(image + QUEUE_VECTOR, NO_VECTOR, 2);
	q = selected(v);
	if (q)
		fill_queue(v, q, image);
	return load_le(image + offset, size);
}

static void set_feature_half(struct virtio_pci *v, uint32_t bits)
{
	unsigned shift = 32 * v->driver_select;

	if (v->driver_select < 2 && !(v->status & STATUS_FEATURES_OK))
		v->driver_features =
			(v->driver_features & ~(0xffffffffull << shift)) | (uint64_t)bits << shift;
}

static uint16_t vector(const struct virtio_pci *v, uint64_t value)
{
	return value < v->pci.msix.vectors ? value : NO_VECTOR;
}

static void set_part(uint64_t *field, unsigned offset, uint64_t value, unsigned size)
{
	if (size == 4)
		store_le((uint8_t *)field + offset, value, 4);
}

/* The selected queue's fields, which are fixed once it is enabled. */
static void queue_write(struct virtio_pci *v, unsigned offset, uint64_t value, unsigned size)
{
	struct virtq_setup *q = selected(v);

	if (!q || q->enabled || v->active)
		return;
	if (offset >= QUEUE_DEVICE)
		set_part(&q->device, offset - QUEUE_DEVICE, value, size);
	else if (offset >= QUEUE_DRIVER)
		set_part(&q->driver, offset - QUEUE_DRIVER, value, size);
	else if (offset >= QUEUE_DESC)
		set_part(&q->desc, offset - QUEUE_DESC, value, size);
	else if (offset == QUEUE_SIZE && size == 2)
		q->size = min_u64(value, virtq_size_max(v->vd->queue[v->queue_select]));
	else if (offset == QUEUE_ENABLE && size == 2)
		q->enabled = value == 1;
}

static void common_write(struct virtio_pci *v, unsigned offset, uint64_t value, unsigned size)
{
	AUTO_LOCK(&v->lock);

	if (v->resetting)
		return;
	if (offset == DEVICE_FEATURE_SELECT && size == 4)
		v->device_select = value;
	else if (offset == DRIVER_FEATURE_SELECT && size == 4)
		v->driver_select = value;
	else if (offset == DRIVER_FEATURE && size == 4)
		set_feature_half(v, value);
	else if (offset == CONFIG_VECTOR && size == 2)
		v->config_vector = vector(v, value);
	else if (offset == DEVICE_STATUS && size == 1)
		virtio_pci_status_written(v, value);
	else if (offset == QUEUE_SELECT && size == 2)
		v->queue_select = value;
	else if (offset == QUEUE_VECTOR && size == 2 && v->queue_select < v->vd->queues)
		v->queue_vector[v->queue_select] = vector(v, value);
	else if (offset >= QUEUE_SIZE && offset < QUEUE_DEVICE + 8)
		queue_write(v, offset, value, size);
}

/* Reading takes the interrupt back (4.1.4.5). */
static uint64_t isr_read(struct virtio_pci *v)
{
	uint8_t isr;
	AUTO_LOCK(&v->isr_lock);

	isr = v->isr;
	v->isr = 0;
	if (isr)
		pci_irq(&v->pci, false);
	return isr;
}

static uint64_t device_read(struct virtio_pci *v, unsigned offset, unsigned size)
{
	struct virtio_device *d = v->vd;
	uint8_t bytes[8] = {};
	AUTO_LOCK(&d->config_lock);

	for (unsigned i = 0; i < size; i++)
		if (offset + i < d->config_len)
			bytes[i] = d->config[offset + i];
	return load_le(bytes, size);
}

static void device_write(struct virtio_pci *v, unsigned offset, uint64_t value, unsigned size)
{
	struct virtio_device *d = v->vd;
	AUTO_LOCK(&d->config_lock);

	for (unsigned i = 0; i < size; i++)
		if (offset + i >= d->config_len || !(d->config_writable & BIT(offset + i)))
			return;
	store_le(d->config + offset, value, size);
	if (d->type->config_written)
		d->type->config_written(d, offset, size);
}

uint64_t virtio_pci_read(struct virtio_pci *v, uint64_t offset, unsigned size)
{
	if (offset < COMMON_LEN)
		return common_read(v, offset, size);
	if (offset == PLACE_ISR)
		return isr_read(v);
	if (offset >= PLACE_DEVICE && offset < PLACE_DEVICE + VIRTIO_CONFIG_MAX)
		return device_read(v, offset - PLACE_DEVICE, size);
	return 0;
}

void virtio_pci_write(struct virtio_pci *v, uint64_t offset, uint64_t value, unsigned size)
{
	if (offset >= PLACE_NOTIFY)
		virtio_pci_kick(v, (offset - PLACE_NOTIFY) / NOTIFY_STRIDE);
	else if (offset < COMMON_LEN)
		common_write(v, offset, value, size);
	else if (offset >= PLACE_DEVICE && offset < PLACE_DEVICE + VIRTIO_CONFIG_MAX)
		device_write(v, offset - PLACE_DEVICE, value, size);
}
