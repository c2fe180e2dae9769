#include "confine/confine_priv.h"

#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Its runtime has threads, files and calls of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER true
#else
#define HAS_SANITIZER false
#endif

/* --- the profile --- */

/* A directory's name, without what does not change it at its end. */
static void trim(char *path)
{
	size_t len = strlen(path);

	for (;;) {
		if (len > 1 && path[len - 1] == '/')
			path[--len] = 0;
		else if (len > 2 && path[len - 1] == '.' && path[len - 2] == '/')
			path[--len] = 0;
		else
			break;
	}
}

/* Takes path. */
static int add(struct confine_profile *p, char *path, enum confine_access how, struct err *e)
{
	trim(path);
	for (unsigned i = 0; i < p->paths; i++) {
		if (strcmp(p->path[i].path, path) != 0)
			continue;
		if (p->path[i].access < how)
			p->path[i].access = how;
		free(path);
		return 0;
	}
	if (p->paths == CONFINE_PATHS_MAX) {
		free(path);
		return err_set(e, E2BIG, "more than %u files", CONFINE_PATHS_MAX);
	}
	p->path[p->paths++] = (struct confine_path){path, how};
	return 0;
}

int confine_allow(struct confine_profile *p, const char *path, enum confine_access how,
		  struct err *e)
{
	char cwd[PATH_MAX], *whole = NULL;

	if (!path || access(path, F_OK) < 0)
		return 0;
	if (*path == '/')
		whole = strdup(path);
	else if (getcwd(cwd, sizeof cwd) && asprintf(&whole, "%s/%s", cwd, path) < 0)
		whole = NULL;
	if (!whole)
		return err_set(e, ENOMEM, "out of memory");
	return add(p, whole, how, e);
}

void confine_profile_done(struct confine_profile *p)
{
	while (p->paths)
		free(p->path[--p->paths].path);
}

/* --- privileges --- */

/* What a folder's files may need done for others. */
#define FOR_OTHERS                                                                                 \
	(BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) |              \
	 BIT(CAP_SETUID) | BIT(CAP_SETGID) | BIT(CAP_MKNOD))

static void drop_capabilities(uint32_t but)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct left[2] = {{.effective = but, .permitted = but}};

	for (unsigned long cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	/* Nor does the user's id 0 bring any back. */
	(void)prctl(PR_SET_SECUREBITS,
		    SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
			    SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
			    SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
		    0, 0, 0);
	(void)syscall(SYS_capset, &head, left);
}

static bool has_capabilities(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct have[2] = {0};

	return syscall(SYS_capget, &head, have) < 0 || have[0].permitted || have[1].permitted;
}

static void limit(int resource)
{
	const struct rlimit none = {0, 0};

	(void)setrlimit(resource, &none);
}

/* That of the session may hold what its user unlocked. */
static void own_keyring(void)
{
	(void)syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL);
}

static int drop_privileges(bool for_others)
{
	own_keyring();
	limit(RLIMIT_CORE);
	limit(RLIMIT_MSGQUEUE);
	drop_capabilities(for_others ? FOR_OTHERS : 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	/* Others of the same user cannot look into its memory, or trace it. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return has_capabilities() ? -EPERM : 0; /* also of one that keeps some: it is told */
}

/* --- all of it --- */

static void note(struct confine_state *s, enum confine_layer layer, const char *name, int r,
		 const char *why)
{
	size_t len = strlen(s->missing);

	if (r == 0)
		s->layers |= layer;
	else
		snprintf(s->missing + len, sizeof s->missing - len, "%s%s (%s)", len ? ", " : "",
			 name, why);
}

static void try(struct confine_state *s, enum confine_layer layer, const char *name, int r)
{
	note(s, layer, name, r, strerror(-r));
}

/* Whatever the profile is for: figures of its own threads, and what C libraries ask for. */
static int allow_own(struct confine_profile *p, struct err *e)
{
	char self[32];
	int r;

	snprintf(self, sizeof self, "/proc/%d", (int)getpid());
	if ((r = confine_allow(p, self, CONFINE_READ, e)) < 0 ||
	    (r = confine_allow(p, "/dev/null", CONFINE_WRITE, e)) < 0)
		return r;
	return confine_allow(p, "/sys/devices/system/cpu/online", CONFINE_READ, e);
}

static void enter_layers(struct confine_profile *p, struct confine_state *s)
{
	int r;

	try(s, CONFINE_NAMESPACES, "namespaces", confine_namespaces(p));
	r = drop_privileges(p->acts_for_others);
	note(s, CONFINE_PRIVILEGES, "privileges", r,
	     p->acts_for_others ? "root's rights over files, which --share needs" : strerror(-r));
	try(s, CONFINE_LANDLOCK, "Landlock", confine_landlock(p));
	r = violation_catch(p->violation_fd);
	try(s, CONFINE_SECCOMP, "seccomp", r < 0 ? r : confine_seccomp(p));
}

int confine_enter(struct confine_profile *p, bool strict, struct confine_state *s, struct err *e)
{
	int r = allow_own(p, e);

	*s = (struct confine_state){0};
	if (r < 0)
		return r;
	if (HAS_SANITIZER)
		snprintf(s->missing, sizeof s->missing,
			 "all (this program is built with a sanitizer)");
	else
		enter_layers(p, s);
	if (strict && s->layers != CONFINE_ALL)
		return err_set(e, EPERM, "this host does not allow all of the confinement: %s",
			       s->missing);
	return 0;
}
