/* virtio: what all devices share between their type's functions and the transport: agreed
 * features, queues, configuration space, and the order of start, stop and reset. */
#include "virtio/virtio.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/log.h"

#define RING_FEATURES                                                                              \
	(VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED)

static void queue_irq(void *ctx, unsigned index)
{
	struct virtio_device *d = ctx;

	if (d->transport)
		d->transport->queue_irq(d->transport, index);
}

static void config_irq(struct virtio_device *d)
{
	if (d->transport)
		d->transport->config_irq(d->transport);
}

int virtio_init(struct virtio_device *d, const struct virtio_type *type,
		const struct virtio_env *env, uint64_t offered, unsigned queues,
		const uint16_t *queue_size, struct err *e)
{
	assert(queues <= VIRTIO_QUEUES_MAX);
	*d = (struct virtio_device){.type = type, .env = *env, .queues = queues};
	d->offered = ((offered | RING_FEATURES) & ~env->hide_features) | VIRTIO_F_VERSION_1;
	pthread_mutex_init(&d->config_lock, NULL);
	for (unsigned i = 0; i < queues; i++) {
		int r;

		assert(queue_size[i] <= VIRTQ_SIZE_MAX && !(queue_size[i] & (queue_size[i] - 1)));
		r = virtq_new(&d->queue[i], env->mem, i, queue_size[i], queue_irq, d, e);
		if (r < 0)
			return err_wrap(e, "%s", type->name);
	}
	return 0;
}

void virtio_done(struct virtio_device *d)
{
	for (unsigned i = 0; i < d->queues; i++)
		virtq_free(d->queue[i]);
	d->queues = 0;
	pthread_mutex_destroy(&d->config_lock);
}

void virtio_config_set(struct virtio_device *d, unsigned offset, const void *bytes, unsigned len)
{
	pthread_mutex_lock(&d->config_lock);
	assert(offset + len <= sizeof d->config);
	memcpy(d->config + offset, bytes, len);
	d->config_generation++;
	pthread_mutex_unlock(&d->config_lock);
	config_irq(d);
}

/* --- life --- */

static void stop_queues(struct virtio_device *d)
{
	for (unsigned i = 0; i < d->queues; i++)
		virtq_stop(d->queue[i]);
}

void virtio_broken(struct virtio_device *d, const char *fmt, ...)
{
	char why[160];
	va_list args;

	stop_queues(d);
	if (atomic_exchange(&d->needs_reset, true))
		return;
	va_start(args, fmt);
	vsnprintf(why, sizeof why, fmt, args);
	va_end(args);
	/* A guest can do this as often as it likes; once is enough to know it. */
	log_line(d->broken_before ? LOG_DEBUG : LOG_WARN,
		 "%s %u: the guest's driver made a mistake: %s; it must reset the device",
		 d->type->name, d->instance, why);
	d->broken_before = true;
	config_irq(d);
}

static void start_queues(struct virtio_device *d)
{
	if (atomic_load(&d->needs_reset))
		return;
	for (unsigned i = 0; i < d->queues; i++)
		if (virtq_setup(d->queue[i])->enabled &&
		    virtq_start(d->queue[i], d->features) < 0) {
			virtio_broken(d, "the rings of queue %u are misplaced", i);
			return;
		}
}

void virtio_start(struct virtio_device *d)
{
	if (d->started)
		return;
	d->started = true;
	d->stopping = false;
	start_queues(d);
	if (d->type->start)
		d->type->start(d);
	/* What came before now, or before a pause, has its kick behind it. */
	for (unsigned i = 0; i < d->queues; i++)
		virtio_kick(d, i);
}

void virtio_stop(struct virtio_device *d)
{
	if (d->started && d->stopping)
		return; /* it is on its way */
	if (!d->started) {
		if (d->transport)
			d->transport->stopped(d->transport);
		return;
	}
	d->stopping = true;
	if (d->type->stop)
		d->type->stop(d);
	else
		virtio_stopped(d);
}

void virtio_stopped(struct virtio_device *d)
{
	stop_queues(d);
	d->started = d->stopping = false;
	if (d->transport)
		d->transport->stopped(d->transport);
}

void virtio_kick(struct virtio_device *d, unsigned n)
{
	if (d->started && !d->stopping && n < d->queues && virtq_running(d->queue[n]))
		d->type->kick(d, n);
}

void virtio_reset(struct virtio_device *d)
{
	for (unsigned i = 0; i < d->queues; i++)
		virtq_reset(d->queue[i]);
	d->features = 0;
	atomic_store(&d->needs_reset, false);
	if (d->type->reset)
		d->type->reset(d);
}

void virtio_state(struct virtio_device *d, struct state *s)
{
	bool needs_reset = atomic_load(&d->needs_reset);

	state_u64(s, "features", &d->features);
	state_bool(s, "needs_reset", &needs_reset);
	if (d->config_len)
		state_bytes(s, "config", d->config, d->config_len);
	state_u8(s, "config_generation", &d->config_generation);
	for (unsigned i = 0; i < d->queues; i++)
		virtq_state(d->queue[i], s);
	if (state_loading(s) && !state_failed(s)) {
		atomic_store(&d->needs_reset, needs_reset);
		if (d->features & ~d->offered)
			state_fail(s, "features 0x%llx: this device has 0x%llx",
				   (unsigned long long)d->features, (unsigned long long)d->offered);
	}
	if (d->type->state)
		d->type->state(d, s);
}
