/* Folders of the host: a virtio-fs device each, with an I/O thread of its own. All are functions
 * of one PCI device. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "share/share.h"
#include "virtio/fs.h"

#define OTHER_FDS 512u /* of the process, for all else */

/* What one share may have open: its part of what the process may, of which as much is asked for
 * as it can get. */
static unsigned fds_for_each(unsigned shares)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return 0;
	if (l.rlim_cur < l.rlim_max) {
		struct rlimit most = {l.rlim_max, l.rlim_max};

		if (setrlimit(RLIMIT_NOFILE, &most) == 0)
			l = most;
	}
	return l.rlim_cur > OTHER_FDS
		       ? (unsigned)min_u64((l.rlim_cur - OTHER_FDS) / shares, SHARE_FDS_MAX)
		       : 0;
}

struct share_arg {
	const struct machine_share *config;
	unsigned fds;
};

static int make_share(struct virtio_device **out, const struct virtio_env *env, const void *opts,
		      struct err *e)
{
	const struct share_arg *a = opts;
	const struct machine_share *c = a->config;
	struct share_opts o = {.read_only = c->read_only,
			       .writeback = c->writeback,
			       .fds = a->fds,
			       .uid = c->uid,
			       .gid = c->gid};
	struct share *s;
	int r;

	o.dir = c->fd >= 0 ? fcntl(c->fd, F_DUPFD_CLOEXEC, 0)
			   : open(c->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (o.dir < 0)
		return err_sys(e, errno, "share '%s'", c->dir);
	r = share_new(&s, &o, e);
	if (r == 0)
		r = virtio_fs_new(out, env, s, c->tag, e);
	return r < 0 ? err_wrap(e, "share '%s'", c->dir) : 0;
}

int machine_add_share(struct machine *m, unsigned n, const struct machine_share *c, struct err *e)
{
	/* All that there may be, so that one more takes nothing from those that are there. */
	const struct share_arg a = {c, fds_for_each(MACHINE_SHARES_MAX)};
	char thread[8];

	snprintf(thread, sizeof thread, "fs%u", n);
	return machine_add_virtio(m, SLOT_SHARE_FUNCTIONS + n, THREAD_SHARE, thread, make_share, &a,
				  e);
}

int machine_make_shares(struct machine *m, const struct machine_config *c, struct err *e)
{
	int r = 0;

	if (c->shares > MACHINE_SHARES_MAX)
		return err_set(e, EINVAL, "%u shares: %u are the most", c->shares,
			       MACHINE_SHARES_MAX);
	for (unsigned i = 0; i < c->shares && r == 0; i++)
		for (unsigned k = 0; k < i && r == 0; k++)
			if (!strcmp(c->share[i].tag, c->share[k].tag))
				r = err_set(e, EINVAL, "two shares have the tag '%s'",
					    c->share[i].tag);
	for (unsigned i = 0; i < c->shares && r == 0; i++)
		r = machine_add_share(m, i, &c->share[i], e);
	return r;
}
