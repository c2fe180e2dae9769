/* ids: who owns what. A process that may act for others does, for the one request that makes a
 * file: then it belongs to the guest's caller from its first moment, and there is no change of
 * owner that someone could turn on another file. The capabilities stay (SECBIT_NO_SETUID_FIXUP),
 * because the guest's kernel has decided already whether the caller may. */
#include "share/share_priv.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOBODY 65534u

static bool may_act_for_others(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {0};
	const uint32_t wanted = BIT(CAP_SETUID) | BIT(CAP_SETGID) | BIT(CAP_CHOWN) |
				BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER);

	return geteuid() == 0 && syscall(SYS_capget, &h, d) == 0 &&
	       (d[0].effective & wanted) == wanted;
}

void ids_init(struct share *s)
{
	s->uid = geteuid();
	s->gid = getegid();
	s->squash = s->opts.force_squash || !may_act_for_others();
}

int ids_begin(struct share *s)
{
	int bits = prctl(PR_GET_SECUREBITS);

	/* A confined process has set it, and may set it no more. */
	if (s->squash || (bits >= 0 && bits & SECBIT_NO_SETUID_FIXUP))
		return 0;
	return prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0 ? -errno : 0;
}

uid_t ids_guest_uid(const struct share *s, uid_t host)
{
	if (!s->squash)
		return host;
	return host == s->uid ? s->opts.uid : NOBODY;
}

gid_t ids_guest_gid(const struct share *s, gid_t host)
{
	if (!s->squash)
		return host;
	return host == s->gid ? s->opts.gid : NOBODY;
}

int ids_host(const struct share *s, uid_t *uid, gid_t *gid)
{
	if (!s->squash)
		return 0;
	if ((*uid != (uid_t)-1 && *uid != s->opts.uid) ||
	    (*gid != (gid_t)-1 && *gid != s->opts.gid))
		return -EPERM;
	*uid = *uid == (uid_t)-1 ? *uid : s->uid;
	*gid = *gid == (gid_t)-1 ? *gid : s->gid;
	return 0;
}

int ids_become(struct share *s, const struct call *c)
{
	if (s->squash)
		return 0;
	/* They say nothing of failure but the id before; so they are asked twice. */
	setfsgid(c->h.gid);
	setfsuid(c->h.uid);
	if ((gid_t)setfsgid(-1) == c->h.gid && (uid_t)setfsuid(-1) == c->h.uid)
		return 0;
	ids_return(s);
	return -EPERM;
}

void ids_return(struct share *s)
{
	if (s->squash)
		return;
	setfsuid(s->uid);
	setfsgid(s->gid);
}
