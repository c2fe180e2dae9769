#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

/* vmgenid: the virtual machine generation identifier (Microsoft, "Virtual Machine Generation
 * ID"): 16 bytes in RAM that the guest does not use otherwise, different each time the machine
 * starts from a state that it, or a copy of it, started from before. A guest that learns of a
 * new one makes new random numbers. dsdt.asl says where they are; a rising edge on IRQ_GED
 * says that they changed. */
struct vmgenid {
	struct device dev;
	struct guest_mem *mem;
	struct irq_line *irq;
	pthread_mutex_t lock; /* guards id */
	uint8_t id[VMGENID_LEN];
};

static struct vmgenid *to_vmgenid(struct device *d)
{
	return container_of(d, struct vmgenid, dev);
}

void vmgenid_place(struct device *d)
{
	struct vmgenid *v = to_vmgenid(d);
	AUTO_LOCK(&v->lock);

	(void)!mem_write(v->mem, VMGENID_BASE, v->id, sizeof v->id); /* all machines have it */
}

void vmgenid_renew(struct device *d, const uint8_t id[VMGENID_LEN])
{
	struct vmgenid *v = to_vmgenid(d);

	pthread_mutex_lock(&v->lock);
	memcpy(v->id, id, sizeof v->id);
	pthread_mutex_unlock(&v->lock);
	vmgenid_place(d);
	irq_set(v->irq, true);
	irq_set(v->irq, false);
}

/* The machine starts anew, but from no earlier state: the identifier stays. */
static void vmgenid_reset(struct device *d)
{
}

static void vmgenid_state(struct device *d, struct state *s)
{
	struct vmgenid *v = to_vmgenid(d);
	AUTO_LOCK(&v->lock);

	state_bytes(s, "id", v->id, sizeof v->id);
}

static void vmgenid_free(struct device *d)
{
	struct vmgenid *v;

	if (!d)
		return;
	v = to_vmgenid(d);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static int vmgenid_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct vmgenid *v = calloc(1, sizeof *v);

	if (!v)
		return err_set(e, ENOMEM, "out of memory");
	v->dev.type = &vmgenid_type;
	v->mem = env->mem;
	v->irq = env->irq[IRQ_GED];
	pthread_mutex_init(&v->lock, NULL);
	*out = &v->dev;
	return 0;
}

const struct device_type vmgenid_type = {
	.name = "vmgenid",
	.new = vmgenid_new,
	.reset = vmgenid_reset,
	.state = vmgenid_state,
	.free = vmgenid_free,
};
