/* The CD-ROM drives: an AHCI controller, and the images, all on one I/O thread. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "ata/ahci.h"
#include "base/log.h"

_Static_assert(MACHINE_CDS_MAX == AHCI_PORTS, "a drive for each port");

struct machine_cds {
	struct device *ahci;
	struct block_ctx *ctx;
	struct block *cd[MACHINE_CDS_MAX];
};

static int open_image(struct machine_cds *d, unsigned n, const char *file, struct err *e)
{
	const struct block_opts o = {
		.file = file, .format = "raw", .read_only = true, .cache = BLOCK_CACHE_WRITEBACK};
	int r = block_open(&d->cd[n], d->ctx, &o, e);

	return r < 0 ? err_wrap(e, "CD %u", n) : 0;
}

int machine_make_cds(struct machine *m, const struct machine_config *c, struct err *e)
{
	struct ahci_opts o = {.mem = m->mem};
	struct machine_cds *d;
	int r;

	if (c->cdroms == 0)
		return 0;
	if (c->cdroms > MACHINE_CDS_MAX)
		return err_set(e, EINVAL, "%u CDs: %u are the most", c->cdroms, MACHINE_CDS_MAX);
	m->cds = d = calloc(1, sizeof *d);
	if (!d)
		return err_set(e, ENOMEM, "CDs");
	r = machine_new_io(m, &o.io, "cd", e);
	if (r == 0)
		r = block_ctx_new(&d->ctx, io_thread_loop(o.io), BLOCK_ENGINE_AUTO, e);
	for (unsigned i = 0; i < c->cdroms && r == 0; i++) {
		r = open_image(d, i, c->cdrom[i], e);
		o.cd[i] = d->cd[i];
	}
	return r < 0 ? r : ahci_new(&d->ahci, m->device[DEV_PCI_HOST], SLOT_AHCI << 3, &o, e);
}

void machine_pause_cds(struct machine *m)
{
	if (m->cds && m->cds->ahci)
		ahci_pause(m->cds->ahci);
}

void machine_reset_cds(struct machine *m)
{
	if (m->cds)
		m->cds->ahci->type->reset(m->cds->ahci);
}

void machine_free_cds(struct machine *m)
{
	struct machine_cds *d = m->cds;

	if (!d)
		return;
	if (d->ahci)
		d->ahci->type->free(d->ahci);
	for (unsigned i = 0; i < MACHINE_CDS_MAX; i++)
		if (d->cd[i])
			(void)!block_close(d->cd[i], NULL); /* nothing was written */
	block_ctx_free(d->ctx);
	free(d);
	m->cds = NULL;
}
