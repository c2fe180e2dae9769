/* The AHCI controller with its drives, all on one I/O thread: disks on ports 0-3, CDs on 4-7, so
 * that no drive moves when one of the other kind is added. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "ata/ahci.h"

#define FIRST_CD MACHINE_ATA_DISKS_MAX

_Static_assert(FIRST_CD + MACHINE_CDS_MAX == AHCI_PORTS, "a port for each drive");

struct machine_ata {
	struct device *ahci;
	struct block_ctx *ctx; /* the CDs'; disks have their own */
	struct block *cd[MACHINE_CDS_MAX];
};

unsigned machine_cd_port(unsigned n)
{
	return FIRST_CD + n;
}

static int open_cd(struct machine_ata *d, unsigned n, const char *file, struct err *e)
{
	const struct block_opts o = {
		.file = file, .format = "raw", .read_only = true, .cache = BLOCK_CACHE_WRITEBACK};
	int r = block_open(&d->cd[n], d->ctx, &o, e);

	return r < 0 ? err_wrap(e, "CD %u", n) : 0;
}

static int add_disks(struct machine *m, const struct machine_config *c, struct ahci_opts *o,
		     struct err *e)
{
	unsigned n = 0;
	int r = 0;

	for (unsigned i = 0; i < c->disks && r == 0; i++) {
		const struct machine_disk_arg arg = {m, i, n, &c->disk[i]};

		if (c->disk[i].bus == DISK_ATA)
			r = machine_make_ata_disk(&o->drive[n++], io_thread_loop(o->io), &arg, e);
	}
	return r;
}

static int add_cds(struct machine_ata *d, const struct machine_config *c, struct ahci_opts *o,
		   struct err *e)
{
	int r = block_ctx_new(&d->ctx, io_thread_loop(o->io), BLOCK_ENGINE_AUTO, e);

	for (unsigned i = 0; i < c->cdroms && r == 0; i++) {
		r = open_cd(d, i, c->cdrom[i], e);
		o->drive[FIRST_CD + i] = (struct ahci_drive){.kind = ATA_CDROM, .image = d->cd[i]};
	}
	return r;
}

static int check(const struct machine_config *c, unsigned disks, struct err *e)
{
	if (c->cdroms > MACHINE_CDS_MAX)
		return err_set(e, EINVAL, "%u CDs: %u are the most", c->cdroms, MACHINE_CDS_MAX);
	if (disks > MACHINE_ATA_DISKS_MAX)
		return err_set(e, EINVAL, "%u ATA disks: %u are the most", disks,
			       MACHINE_ATA_DISKS_MAX);
	return 0;
}

int machine_make_ata(struct machine *m, const struct machine_config *c, struct err *e)
{
	struct ahci_opts o = {.mem = m->mem};
	struct machine_ata *d;
	unsigned disks = 0;
	int r;

	for (unsigned i = 0; i < c->disks; i++)
		disks += c->disk[i].bus == DISK_ATA;
	if (!disks && !c->cdroms)
		return 0;
	if ((r = check(c, disks, e)) < 0)
		return r;
	m->ata = d = calloc(1, sizeof *d);
	if (!d)
		return err_set(e, ENOMEM, "ATA drives");
	if ((r = machine_new_io(m, &o.io, THREAD_DISK, "ata", e)) < 0 ||
	    (r = add_disks(m, c, &o, e)) < 0 || (r = add_cds(d, c, &o, e)) < 0)
		return r;
	return ahci_new(&d->ahci, m->device[DEV_PCI_HOST], SLOT_AHCI << 3, &o, e);
}

void machine_pause_ata(struct machine *m)
{
	if (m->ata && m->ata->ahci)
		ahci_pause(m->ata->ahci);
}

void machine_reset_ata(struct machine *m)
{
	if (m->ata)
		m->ata->ahci->type->reset(m->ata->ahci);
}

void machine_free_ata(struct machine *m)
{
	struct machine_ata *d = m->ata;

	if (!d)
		return;
	if (d->ahci)
		d->ahci->type->free(d->ahci);
	for (unsigned i = 0; i < MACHINE_CDS_MAX; i++)
		if (d->cd[i])
			(void)!block_close(d->cd[i], NULL); /* nothing was written */
	block_ctx_free(d->ctx);
	free(d);
	m->ata = NULL;
}
