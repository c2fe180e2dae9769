/* Disks and network cards that come and go while the guest runs.
 *
 * In: a disk is opened on its new I/O thread, as that may take a while; then the device is made as at
 * the start, and ACPI tells the guest to look at the slot (chipset/plug.h).
 *
 * Out: the guest lets go of it, asked or not, or it is pulled out. Whoever takes the slot lets the
 * function vanish from the bus. Then, step by step, so that nobody waits for a slow disk:
 *
 *   loop thread   the device is told to stop
 *   I/O thread    it has, what was in flight included; its image is flushed and closed
 *   loop thread   the I/O thread ends; with the vCPUs parked, as one may still be in a register of the
 *                 device, it is freed
 *
 * A machine that ends meanwhile frees what is left as it frees all else. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "chipset/plug.h"
#include "machine/machine_priv.h"

#define SLOT_NET_LOOSE 0x0cu /* from here on; dsdt.asl has the same */
#define SLOT_LAST      0x1eu

struct place {
	struct machine *m;
	unsigned slot;
	bool asked, leaving;         /* loop thread */
	struct machine_image *image; /* that is leaving; NULL: it is a card's */
	struct loop_call left;       /* to the loop thread: the guest let go of it */
	struct loop_call stopped;    /* to the I/O thread */
	struct loop_call finished;   /* to the loop thread */
};

struct machine_plug {
	struct plug_owner owner;
	struct machine *m;
	struct place place[PCI_SLOTS];
	struct coming *coming;
};

/* A disk on its way in. The loop thread's and the I/O thread's in turns. */
struct coming {
	struct machine *m;
	struct io_thread *io;
	const struct machine_disk *config;
	struct machine_image *image; /* when it is open */
	struct machine_attached *to;
	unsigned slot; /* while the device is made */
	int r;
	struct err err;
	struct loop_call open;   /* to the I/O thread */
	struct loop_call opened; /* to the loop thread */
	struct coming *next;
};

static bool is_loose(unsigned slot)
{
	return slot >= SLOT_NET_LOOSE && slot <= SLOT_LAST;
}

static bool is_net(unsigned slot)
{
	return slot >= SLOT_NET && slot < SLOT_DISK;
}

static void name_net(unsigned slot, char id[MACHINE_ID_LEN])
{
	snprintf(id, MACHINE_ID_LEN, "net%u", (slot - SLOT_NET) % MACHINE_NETS_MAX);
}

static void id_of(const struct machine *m, unsigned slot, char id[MACHINE_ID_LEN])
{
	struct machine_part part;

	if (is_net(slot)) {
		name_net(slot, id);
		return;
	}
	machine_image_tell(machine_image_in(m, slot), &part);
	strcpy(id, part.id);
}

static void tell(struct machine *m, const char *id, bool there)
{
	if (m->watcher && m->watcher->part)
		m->watcher->part(m->watcher, id, there);
}

/* --- out --- */

static void forget_io(struct machine *m, struct io_thread *io)
{
	for (unsigned i = 0; i < m->ios; i++)
		if (m->io[i] == io)
			m->io[i] = m->io[--m->ios];
}

static void free_wire(struct machine *m, unsigned slot)
{
	if (!is_net(slot))
		return;
	net_backend_free(m->wire[slot - SLOT_NET]);
	m->wire[slot - SLOT_NET] = NULL;
}

/* The I/O thread has ended, or never began. */
static void free_device(struct machine *m, unsigned slot)
{
	struct device *d = m->virtio[slot] ? virtio_pci_device(m->virtio[slot]) : NULL;
	bool ran;

	free_wire(m, slot);
	if (d) {
		ran = machine_stand_still(m);
		m->virtio[slot] = NULL;
		d->type->free(d);
		if (ran)
			machine_go_on(m);
	}
	m->virtio_io[slot] = NULL;
}

static void finished(struct loop_call *call)
{
	struct place *p = container_of(call, struct place, finished);
	struct machine *m = p->m;
	struct io_thread *io = m->virtio_io[p->slot];
	char id[MACHINE_ID_LEN];

	id_of(m, p->slot, id);
	io_thread_stop(io);
	free_device(m, p->slot);
	if (p->image)
		machine_image_forget(p->image);
	machine_image_free(p->image);
	p->image = NULL;
	forget_io(m, io);
	io_thread_free(io);
	p->asked = p->leaving = false;
	tell(m, id, false);
}

static void stopped(struct loop_call *call)
{
	struct place *p = container_of(call, struct place, stopped);

	machine_image_close(p->image);
	loop_post(p->m->loop, &p->finished);
}

/* It has vanished from the bus. */
static void leave(struct place *p)
{
	p->leaving = true;
	p->image = machine_image_in(p->m, p->slot);
	if (p->image)
		machine_image_leaves(p->image);
	virtio_pci_pause_then(p->m->virtio[p->slot], &p->stopped);
}

static void left(struct loop_call *call)
{
	struct place *p = container_of(call, struct place, left);
	char id[MACHINE_ID_LEN];

	id_of(p->m, p->slot, id);
	if (!p->asked)
		log_info("%s: %s: the guest let go of it unasked", p->m->name, id);
	leave(p);
}

/* A vCPU's thread. */
static void slot_left(struct plug_owner *o, unsigned slot)
{
	struct machine_plug *plug = container_of(o, struct machine_plug, owner);

	virtio_pci_vanish(plug->m->virtio[slot], false);
	loop_post(plug->m->loop, &plug->place[slot].left);
}

/* --- which there are --- */

bool machine_plug_leaves(const struct machine *m, unsigned slot)
{
	return m->plug->place[slot].leaving;
}

static void part_in(const struct machine *m, unsigned slot, struct machine_part *to)
{
	const struct place *p = &m->plug->place[slot];

	*to = (struct machine_part){.kind = MACHINE_NET};
	if (is_net(slot))
		name_net(slot, to->id);
	else
		machine_image_tell(machine_image_in(m, slot), to);
	to->slot = slot;
	to->asked = p->asked || p->leaving;
	to->fixed = !is_loose(slot);
}

unsigned machine_parts(const struct machine *m, struct machine_part to[MACHINE_PARTS_MAX])
{
	unsigned n = 0;

	for (unsigned i = 0; i < MACHINE_DISKS_MAX; i++) {
		if (!m->image[i])
			continue;
		to[n] = (struct machine_part){0};
		machine_image_tell(m->image[i], &to[n]);
		if (machine_image_slot(m->image[i]))
			part_in(m, machine_image_slot(m->image[i]), &to[n]);
		else
			to[n].fixed = true;
		n++;
	}
	for (unsigned slot = SLOT_NET; slot < SLOT_DISK; slot++)
		if (m->virtio[slot])
			part_in(m, slot, &to[n++]);
	return n;
}

static struct place *find_place(struct machine *m, const char *id, struct err *e)
{
	char other[MACHINE_ID_LEN];

	for (unsigned slot = SLOT_NET; slot < PCI_SLOTS; slot++) {
		if (!m->virtio[slot] || (!is_net(slot) && !machine_image_in(m, slot)))
			continue;
		id_of(m, slot, other);
		if (!strcmp(id, other))
			return &m->plug->place[slot];
	}
	err_set(e, ENOENT, "there is no '%s' that could be taken out; holon inspect names them",
		id);
	return NULL;
}

int machine_detach(struct machine *m, const char *id, bool pull, struct err *e)
{
	struct place *p = find_place(m, id, e);
	struct device *plug = m->device[DEV_PLUG];

	if (!p)
		return -ENOENT;
	if (p->leaving)
		return err_set(e, EBUSY, "%s is on its way out", id);
	if (!pull && !is_loose(p->slot))
		return err_set(e, EINVAL,
			       "%s is in a slot that the guest cannot let go of: it goes by "
			       "--force only",
			       id);
	if (!pull) {
		p->asked = true;
		if (!plug_slot_ask(plug, p->slot))
			return err_set(e, EBUSY, "%s is on its way out", id);
		return 0;
	}
	if (!plug_slot_take(plug, p->slot))
		return err_set(e, EBUSY, "%s is on its way out", id);
	virtio_pci_vanish(m->virtio[p->slot], true);
	plug_slot_pulled(plug, p->slot);
	leave(p);
	return 0;
}

bool machine_plug_reset(struct machine *m, unsigned slot)
{
	struct place *p = slot < PCI_SLOTS ? &m->plug->place[slot] : NULL;

	if (!p || (!p->asked && !p->leaving))
		return false; /* shares have no place of their own */
	if (p->leaving || !plug_slot_take(m->device[DEV_PLUG], slot))
		return true; /* or the guest took it just before, which we hear of next */
	virtio_pci_vanish(m->virtio[slot], false);
	leave(p);
	return true;
}

/* --- in --- */

static unsigned free_slot(const struct machine *m, unsigned first, unsigned last)
{
	unsigned found = 0;

	for (unsigned slot = last; slot >= first; slot--)
		if (!m->virtio[slot] && (!found || !plug_slot_mourned(m->device[DEV_PLUG], slot)))
			found = slot;
	return found;
}

static void begin(struct machine *m, unsigned slot, char id[MACHINE_ID_LEN])
{
	plug_slot_fill(m->device[DEV_PLUG], slot, true);
	id_of(m, slot, id);
	tell(m, id, true);
}

static void drop(struct coming *c)
{
	struct coming **at = &c->m->plug->coming;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	if (c->io)
		io_thread_stop(c->io);
	machine_image_free(c->image);
	io_thread_free(c->io);
	free(c);
}

/* I/O thread. */
static void open_it(struct loop_call *call)
{
	struct coming *c = container_of(call, struct coming, open);

	c->r = machine_image_open(&c->image, c->m, io_thread_loop(c->io), c->config, &c->err);
	loop_post(c->m->loop, &c->opened);
}

static int make_disk(struct virtio_device **out, const struct virtio_env *env, const void *opts,
		     struct err *e)
{
	const struct coming *c = opts;

	return machine_image_device(out, env, c->image, c->config, e);
}

/* I/O thread, for which the loop thread waits. */
static void make_it(void *arg)
{
	struct coming *c = arg;

	c->r = machine_make_function(c->m, c->slot, c->io, make_disk, c, &c->err);
}

static int put_in(struct coming *c, char id[MACHINE_ID_LEN])
{
	struct machine *m = c->m;

	c->slot = free_slot(m, SLOT_DISK, SLOT_LAST);
	if (!c->slot)
		return err_set(&c->err, EBUSY, "all slots for disks are taken");
	if (machine_image_place(c->image, c->slot, &c->err) < 0)
		return -EBUSY;
	io_thread_call(c->io, make_it, c);
	if (c->r < 0) {
		m->virtio_io[c->slot] = NULL;
		machine_image_forget(c->image);
		return c->r;
	}
	m->io[m->ios++] = c->io;
	begin(m, c->slot, id);
	c->image = NULL;
	c->io = NULL;
	return 0;
}

static void opened(struct loop_call *call)
{
	struct coming *c = container_of(call, struct coming, opened);
	struct machine_attached *to = c->to;
	char id[MACHINE_ID_LEN] = "";
	int r = c->r < 0 ? c->r : put_in(c, id);
	struct err err = c->err;

	drop(c);
	to->done(to, r, id, &err);
}

int machine_attach_disk(struct machine *m, const struct machine_disk *config,
			struct machine_attached *to, struct err *e)
{
	struct coming *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return err_set(e, ENOMEM, "out of memory");
	*c = (struct coming){.m = m,
			     .config = config,
			     .to = to,
			     .open.run = open_it,
			     .opened.run = opened,
			     .next = m->plug->coming};
	m->plug->coming = c;
	r = io_thread_new(&c->io, THREAD_DISK, "disk", e);
	if (r == 0)
		r = io_thread_start(c->io, e);
	if (r < 0)
		drop(c);
	else
		loop_post(io_thread_loop(c->io), &c->open);
	return r;
}

int machine_attach_net(struct machine *m, const struct machine_net *c, char id[MACHINE_ID_LEN],
		       struct err *e)
{
	unsigned slot = free_slot(m, SLOT_NET_LOOSE, SLOT_DISK - 1), ios = m->ios;
	int r;

	if (!slot)
		return err_set(e, EBUSY, "all slots for network cards that come later are taken");
	r = machine_add_net(m, slot - SLOT_NET, c, e);
	if (r == 0)
		r = io_thread_start(m->virtio_io[slot], e);
	if (r == 0) {
		begin(m, slot, id);
		return 0;
	}
	if (m->virtio[slot])
		virtio_pci_vanish(m->virtio[slot], false);
	free_device(m, slot);
	while (m->ios > ios)
		io_thread_free(m->io[--m->ios]);
	return r;
}

/* --- */

void machine_plug_fill(struct machine *m)
{
	for (unsigned slot = SLOT_NET; slot < PCI_SLOTS; slot++)
		if (m->virtio[slot])
			plug_slot_fill(m->device[DEV_PLUG], slot, false);
}

int machine_plug_new(struct machine *m, struct err *e)
{
	struct machine_plug *p = calloc(1, sizeof *p);

	if (!p)
		return err_set(e, ENOMEM, "out of memory");
	p->m = m;
	p->owner.slot_left = slot_left;
	for (unsigned i = 0; i < PCI_SLOTS; i++)
		p->place[i] = (struct place){.m = m,
					     .slot = i,
					     .left.run = left,
					     .stopped.run = stopped,
					     .finished.run = finished};
	m->plug = p;
	plug_set_owner(m->device[DEV_PLUG], &p->owner);
	return 0;
}

void machine_plug_free(struct machine *m)
{
	const struct err over = {.code = ESHUTDOWN, .text = "the VM has ended"};

	while (m->plug && m->plug->coming) {
		struct machine_attached *to = m->plug->coming->to;

		drop(m->plug->coming);
		to->done(to, -ESHUTDOWN, "", &over);
	}
	free(m->plug);
	m->plug = NULL;
}
