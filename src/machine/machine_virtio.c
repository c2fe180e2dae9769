/* The virtio devices: which there are, where they sit on the PCI bus, and on which I/O threads
 * they live. Slots are part of the machine that a guest knows: they do not move when a device
 * is added.
 *
 *   00:01  rng        00:02  ports      00:03  balloon    00:04  vsock      00:05  console
 *   00:06  ATA disks and CD-ROM drives (machine_ata.c)
 *   00:07  shares, a function each (machine_shares.c)
 *   00:08 ... 00:0f   network cards
 *   00:10 ... 00:1f   disks
 *
 * Small devices share one I/O thread; each card and disk has its own. Threads begin when the
 * vCPUs run already, and end before the devices do. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "virtio/rng.h"

int machine_parse_virtio_off(const char *list, uint64_t *features, struct err *e)
{
	static const struct {
		const char *name;
		uint64_t feature;
	} known[] = {
		{"packed", VIRTIO_F_RING_PACKED},
		{"event-idx", VIRTIO_F_EVENT_IDX},
		{"indirect", VIRTIO_F_INDIRECT_DESC},
	};

	for (const char *word = list; word && *word;) {
		size_t len = strcspn(word, ","), i = 0;

		while (i < ARRAY_SIZE(known) &&
		       (strlen(known[i].name) != len || strncmp(known[i].name, word, len)))
			i++;
		if (i == ARRAY_SIZE(known))
			return err_set(e, EINVAL,
				       "virtio feature '%.*s': packed, event-idx and indirect can "
				       "be switched off",
				       (int)len, word);
		*features |= known[i].feature;
		word += len + (word[len] == ',');
	}
	return 0;
}

int machine_new_io(struct machine *m, struct io_thread **out, enum thread_role role,
		   const char *name, struct err *e)
{
	int r = io_thread_new(out, role, name, e);

	if (r == 0)
		m->io[m->ios++] = *out;
	return r;
}

int machine_make_function(struct machine *m, unsigned slot, struct io_thread *io,
			  int (*make)(struct virtio_device **out, const struct virtio_env *env,
				      const void *opts, struct err *e),
			  const void *opts, struct err *e)
{
	struct virtio_env env = {
		.mem = m->mem,
		.loop = io_thread_loop(io),
		.clock = loop_clock(m->loop),
		.hide_features = m->virtio_off,
	};
	const unsigned devfn = slot < PCI_SLOTS ? slot << 3 : SLOT_SHARE << 3 | (slot - PCI_SLOTS);
	struct virtio_device *d;
	int r = make(&d, &env, opts, e);

	if (r == 0)
		r = virtio_pci_new(&m->virtio[slot], d, m->device[DEV_PCI_HOST], (uint8_t)devfn, e);
	m->virtio_io[slot] = io;
	return r;
}

int machine_add_virtio(struct machine *m, unsigned slot, enum thread_role role, const char *thread,
		       int (*make)(struct virtio_device **out, const struct virtio_env *env,
				   const void *opts, struct err *e),
		       const void *opts, struct err *e)
{
	struct io_thread *io = m->io[0];
	int r = thread ? machine_new_io(m, &io, role, thread, e) : 0;

	if (r == 0)
		r = machine_make_function(m, slot, io, make, opts, e);
	return r;
}

static int make_rng(struct virtio_device **out, const struct virtio_env *env, const void *opts,
		    struct err *e)
{
	return virtio_rng_new(out, env, e);
}

static int add_disks(struct machine *m, const struct machine_config *c, struct err *e)
{
	const unsigned most = m->firmware ? SLOT_LPC - SLOT_DISK : MACHINE_DISKS_MAX;
	unsigned n = 0; /* those of another bus do not count */

	if (c->disks > most)
		return err_set(e, EINVAL, "%u disks: %u are the most%s", c->disks, most,
			       m->firmware ? " with firmware" : "");
	int r = 0;

	for (unsigned i = 0; i < c->disks && r == 0; i++) {
		const struct machine_disk_arg arg = {m, i, n, &c->disk[i]};
		char thread[8];

		if (c->disk[i].bus != DISK_VIRTIO)
			continue;
		snprintf(thread, sizeof thread, "vd%c", 'a' + (int)n);
		r = machine_add_virtio(m, SLOT_DISK + n++, THREAD_DISK, thread, machine_make_disk,
				       &arg, e);
	}
	return r;
}

int machine_make_virtio(struct machine *m, const struct machine_config *c, struct err *e)
{
	struct io_thread *shared;
	int r = machine_new_io(m, &shared, THREAD_DEVICES, "io", e);

	if (r == 0)
		r = machine_add_virtio(m, SLOT_RNG, THREAD_DEVICES, NULL, make_rng, NULL, e);
	if (r == 0)
		r = machine_make_small(m, c, e);
	if (r == 0)
		r = machine_make_shares(m, c, e);
	if (r == 0)
		r = add_disks(m, c, e);
	if (r == 0)
		r = machine_make_ata(m, c, e);
	if (r == 0)
		r = machine_make_nets(m, c, e);
	machine_plug_fill(m);
	return r;
}

int machine_start_io(struct machine *m, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < m->ios && r == 0; i++)
		r = io_thread_start(m->io[i], e);
	return r;
}

void machine_pause_virtio(struct machine *m)
{
	machine_pause_ata(m);
	for (unsigned i = 0; i < VIRTIO_SLOTS; i++)
		if (m->virtio[i])
			virtio_pci_pause(m->virtio[i]);
	for (unsigned i = 0; i < VIRTIO_SLOTS; i++)
		if (m->virtio[i])
			virtio_pci_wait_paused(m->virtio[i]);
}

void machine_reset_virtio(struct machine *m)
{
	machine_reset_ata(m);
	for (unsigned i = 0; i < VIRTIO_SLOTS; i++) {
		struct device *d = m->virtio[i] ? virtio_pci_device(m->virtio[i]) : NULL;

		/* What the guest was asked to let go of, the one before the reset did. */
		if (!d || machine_plug_reset(m, i))
			continue;
		d->type->reset(d);
		virtio_pci_resume(m->virtio[i]);
	}
}

void machine_stop_io(struct machine *m)
{
	machine_pause_virtio(m);
	for (unsigned i = 0; i < m->ios; i++)
		io_thread_stop(m->io[i]);
}

void machine_free_virtio(struct machine *m)
{
	machine_free_wires(m);
	for (unsigned i = 0; i < VIRTIO_SLOTS; i++) {
		struct device *d = m->virtio[i] ? virtio_pci_device(m->virtio[i]) : NULL;

		if (d)
			d->type->free(d);
		m->virtio[i] = NULL;
	}
	machine_free_ata(m);
	machine_close_disks(m);
	for (unsigned i = 0; i < m->ios; i++)
		io_thread_free(m->io[i]);
	m->ios = 0;
}
