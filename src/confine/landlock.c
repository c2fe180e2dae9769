/* landlock: the process sees the files of its profile and no others, whatever descriptors of directories it
 * has; listens and connects to no TCP port unless the VM uses the host's network; and reaches no process
 * outside by signals or abstract sockets (Documentation/userspace-api/landlock.rst). What a kernel's ABI does
 * not know is left out: files are there from the first on. */
#include "confine/confine_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"

/* Debian 12's headers have the second ABI. */
struct ruleset {
	uint64_t fs, net, scoped;
};
struct path_rule {
	uint64_t access;
	int32_t fd;
} __attribute__((packed));

#define RULE_PATH         1
#define GET_VERSION       1u
#define FS_EXECUTE        (UINT64_C(1) << 0)
#define FS_WRITE_FILE     (UINT64_C(1) << 1)
#define FS_READ_FILE      (UINT64_C(1) << 2)
#define FS_READ_DIR       (UINT64_C(1) << 3)
#define FS_REMOVE_FILE    (UINT64_C(1) << 5)
#define FS_MAKE_REG       (UINT64_C(1) << 8)
#define FS_MAKE_SOCK      (UINT64_C(1) << 9)
#define FS_FIRST_ABI      ((UINT64_C(1) << 13) - 1)
#define FS_REFER          (UINT64_C(1) << 13) /* 2 */
#define FS_TRUNCATE       (UINT64_C(1) << 14) /* 3 */
#define FS_IOCTL_DEV      (UINT64_C(1) << 15) /* 5 */
#define NET_BIND_CONNECT  UINT64_C(3)         /* 4 */
#define SCOPE_UNIX_SIGNAL UINT64_C(3)         /* 6 */

#define FS_OF_A_FILE (FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)

static const uint64_t rights[] = {
	[CONFINE_READ] = FS_READ_FILE | FS_READ_DIR,
	[CONFINE_WRITE] = FS_READ_FILE | FS_READ_DIR | FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV,
	[CONFINE_MANAGE] = FS_READ_FILE | FS_READ_DIR | FS_WRITE_FILE | FS_TRUNCATE |
			   FS_REMOVE_FILE | FS_MAKE_REG | FS_MAKE_SOCK,
	[CONFINE_TREE] = (FS_FIRST_ABI & ~FS_EXECUTE) | FS_REFER | FS_TRUNCATE,
	[CONFINE_CONNECT] = 0,
};

static struct ruleset handled_by(long abi, bool network)
{
	struct ruleset r = {.fs = FS_FIRST_ABI};

	if (abi >= 2)
		r.fs |= FS_REFER;
	if (abi >= 3)
		r.fs |= FS_TRUNCATE;
	if (abi >= 4 && !network)
		r.net = NET_BIND_CONNECT;
	if (abi >= 5)
		r.fs |= FS_IOCTL_DEV;
	if (abi >= 6)
		r.scoped = SCOPE_UNIX_SIGNAL;
	return r;
}

/* An older kernel knows the beginning of the structure only. */
static size_t size_for(long abi)
{
	return abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
}

static int allow(int rules, const struct confine_path *p, uint64_t handled)
{
	AUTO_CLOSE int fd = open(p->path, O_PATH | O_CLOEXEC);
	struct path_rule rule = {.access = rights[p->access] & handled, .fd = fd};
	struct stat st;

	if (!rule.access || fd < 0 || fstat(fd, &st) < 0)
		return 0; /* gone meanwhile */
	if (!S_ISDIR(st.st_mode))
		rule.access &= FS_OF_A_FILE;
	return syscall(SYS_landlock_add_rule, rules, RULE_PATH, &rule, 0) < 0 ? -errno : 0;
}

int confine_landlock(const struct confine_profile *p)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, GET_VERSION);
	struct ruleset handled = handled_by(abi, p->network);
	AUTO_CLOSE int rules = -1;
	int r = 0;

	if (abi < 0)
		return -errno;
	rules = (int)syscall(SYS_landlock_create_ruleset, &handled, size_for(abi), 0);
	if (rules < 0)
		return -errno;
	for (unsigned i = 0; i < p->paths && r == 0; i++)
		r = allow(rules, &p->path[i], handled.fs);
	if (r == 0 && syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		r = -errno;
	return r;
}
