/* host: one function per fact. Each looks at the thing itself where it can (makes a memfd,
 * sets up a ring) and at files in /proc and /sys where only they tell. */
#include "cpu/host.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/platform/x86.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/bits.h"
#include "cpu/probe.h"

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1 << 1)
#endif
#define LANDLOCK_CREATE_RULESET_VERSION_ (1u << 0)
#define CGROUP_ROOT                      "/sys/fs/cgroup"

__attribute__((format(printf, 2, 3))) static void say(struct host_fact *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->detail, sizeof f->detail, fmt, ap);
	va_end(ap);
}

__attribute__((format(printf, 2, 3))) static void advise(struct host_fact *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->advice, sizeof f->advice, fmt, ap);
	va_end(ap);
}

/* The file's first line without its newline; false when it cannot be read. */
static bool read_line(const char *path, char *to, size_t len)
{
	AUTO_FCLOSE FILE *file = fopen(path, "re");

	if (!file || !fgets(to, len, file))
		return false;
	to[strcspn(to, "\n")] = 0;
	return true;
}

/* The [chosen] word of a line such as "always [never] advise". */
static void chosen_word(const char *line, char *to, size_t len)
{
	const char *from = strchr(line, '[');
	size_t n = from ? strcspn(from + 1, "]") : 0;

	snprintf(to, len, "%.*s", (int)n, from ? from + 1 : "");
}

/* --- processor --- */

static void fact_kvm(struct host_fact *f)
{
	struct kvm_finding k;

	kvm_probe(&k);
	f->found = k.verdict == KVM_USABLE;
	say(f, "%s", k.line);
	switch (k.verdict) {
	case KVM_USABLE: break;
	case KVM_DENIED: advise(f, "as root: usermod -aG kvm USER; then log in again"); break;
	case KVM_ABSENT:
		advise(f,
		       "on hardware: switch on virtualization in the firmware, modprobe kvm_intel "
		       "or kvm_amd; without, VMs run on the JIT");
		break;
	default: advise(f, "nothing to do: VMs run on the JIT");
	}
}

static bool leaf7(uint32_t *ebx)
{
	uint32_t a, c, d;

	return __get_cpuid_count(7, 0, &a, ebx, &c, &d);
}

static void fact_bmi2(struct host_fact *f)
{
	uint32_t ebx = 0;

	f->found = leaf7(&ebx) && ebx & BIT(8);
	say(f, f->found ? "RORX, SHLX and the like, which leave flags alone"
			: "not on this processor");
	if (!f->found)
		advise(f, "nothing to do: translated code saves flags more often");
}

static void fact_fsgsbase(struct host_fact *f)
{
	f->found = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	say(f, f->found ? "user code may switch its GS base"
			: "the kernel or the processor does not let user code switch its GS base");
	if (!f->found)
		advise(f, "Linux 5.9 or later, without 'nofsgsbase' on its command line");
}

static void fact_vectors(struct host_fact *f)
{
	f->found = CPU_FEATURE_ACTIVE(AVX2);
	say(f, "%s",
	    CPU_FEATURE_ACTIVE(AVX512F) ? "AVX2 and AVX-512"
	    : f->found                  ? "AVX2, no AVX-512"
					: "SSE only");
	if (!f->found)
		advise(f, "nothing to do: guests see a processor without AVX2");
}

static void fact_cpuid_faulting(struct host_fact *f)
{
	/* arch_prctl(ARCH_GET_CPUID) answers everywhere; setting it to what it is tells */
	f->found = syscall(SYS_arch_prctl, 0x1012, 1ul) == 0;
	say(f, f->found ? "CPUID of a process can be made to fault" : "not on this processor");
	if (!f->found)
		advise(f, "nothing to do: translated code does not need it");
}

/* --- memory --- */

static void fact_memfd(struct host_fact *f)
{
	AUTO_CLOSE int fd = memfd_create("holon-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	f->found = fd >= 0;
	say(f, f->found ? "guest memory can be made" : "memfd_create: %s", strerrordesc_np(errno));
	if (!f->found)
		advise(f,
		       "a kernel with CONFIG_MEMFD_CREATE, and a sandbox that allows memfd_create: "
		       "no VM runs without");
}

static void fact_userfaultfd(struct host_fact *f)
{
	AUTO_CLOSE int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	AUTO_CLOSE int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	f->found = fd >= 0 || dev >= 0;
	say(f, f->found ? "%s" : "userfaultfd: %s",
	    f->found ? "memory can be brought in as the guest touches it" : strerrordesc_np(errno));
	if (!f->found)
		advise(f,
		       "sysctl vm.unprivileged_userfaultfd=1, or give the user /dev/userfaultfd");
}

static void fact_io_uring(struct host_fact *f)
{
	struct io_uring_params p = {};
	AUTO_CLOSE int fd = syscall(SYS_io_uring_setup, 2, &p);

	f->found = fd >= 0;
	say(f, f->found ? "%s" : "io_uring_setup: %s",
	    f->found ? "asynchronous disk I/O" : strerrordesc_np(errno));
	if (!f->found)
		advise(f,
		       "sysctl kernel.io_uring_disabled=0, and a sandbox that allows it; without, "
		       "disk I/O goes through threads");
}

static void fact_hugetlb(struct host_fact *f)
{
	static const char pages[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
	char line[64] = "0";

	f->found = read_line(pages, line, sizeof line) && strcmp(line, "0") != 0;
	say(f, "%s huge pages of 2 MiB reserved", line);
	if (!f->found)
		advise(f, "optional; as root: sysctl vm.nr_hugepages=N (2 MiB each)");
}

static void fact_thp_shmem(struct host_fact *f)
{
	char line[128] = "", word[32];

	if (!read_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", line, sizeof line))
		say(f, "this kernel has no transparent huge pages for shared memory");
	chosen_word(line, word, sizeof word);
	f->found = word[0] && strcmp(word, "never") != 0 && strcmp(word, "deny") != 0;
	if (line[0])
		say(f, "shmem_enabled is '%s'", word);
	if (!f->found)
		advise(f, "optional, for speed; as root: echo advise > "
			  "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
}

static void fact_ksm(struct host_fact *f)
{
	char line[32] = "";
	bool there = read_line("/sys/kernel/mm/ksm/run", line, sizeof line);

	f->found = there && strcmp(line, "1") == 0;
	say(f, "%s", !there ? "this kernel cannot merge equal pages" : f->found ? "on" : "off");
	if (!f->found && there)
		advise(f, "optional, saves memory between like VMs; as root: echo 1 > "
			  "/sys/kernel/mm/ksm/run");
}

/* --- confinement --- */

static void fact_landlock(struct host_fact *f)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION_);

	f->found = abi > 0;
	if (f->found)
		say(f, "ABI %ld", abi);
	else
		say(f, "%s",
		    errno == EOPNOTSUPP ? "built in, but switched off" : "not in this kernel");
	if (!f->found)
		advise(f, "a kernel with CONFIG_SECURITY_LANDLOCK and 'landlock' in its lsm= list");
}

static void fact_seccomp(struct host_fact *f)
{
	char actions[160] = "";

	/* A filter at address 0 fails with EFAULT where filters are known at all. */
	f->found = prctl(PR_SET_SECCOMP, 2 /* SECCOMP_MODE_FILTER */, NULL) < 0 && errno == EFAULT;
	read_line("/proc/sys/kernel/seccomp/actions_avail", actions, sizeof actions);
	say(f, f->found ? "filters: %s" : "no filters%s", actions);
	if (!f->found)
		advise(f, "a kernel with CONFIG_SECCOMP_FILTER");
}

/* In a child, as it cannot be undone. */
static void fact_user_namespaces(struct host_fact *f)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(syscall(SYS_unshare, 0x10000000 /* CLONE_NEWUSER */) == 0 ? 0 : 1);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	f->found = pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	say(f, f->found ? "can be made" : "cannot be made by this user");
	if (!f->found)
		advise(f,
		       "sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0, "
		       "or run outside the container");
}

/* --- network --- */

static void fact_device(struct host_fact *f, const char *path, const char *module)
{
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	int error = errno;

	f->found = fd >= 0;
	say(f, "%s: %s", path, f->found ? "opens" : strerrordesc_np(error));
	if (f->found)
		return;
	if (error == EACCES || error == EPERM)
		advise(f, "give the user (or its group) read and write on %s", path);
	else
		advise(f, "as root: modprobe %s", module);
}

static void fact_tun(struct host_fact *f)
{
	fact_device(f, "/dev/net/tun", "tun");
}

static void fact_vhost_net(struct host_fact *f)
{
	fact_device(f, "/dev/vhost-net", "vhost_net");
}

/* --- limits --- */

static void fact_cgroup(struct host_fact *f)
{
	static const char *const v1[] = {"cpu", "memory", "pids"};
	char line[200];
	int open_to_us = 0;

	if (read_line(CGROUP_ROOT "/cgroup.controllers", line, sizeof line)) {
		f->found = access(CGROUP_ROOT "/cgroup.procs", W_OK) == 0;
		say(f, "v2, %s: %.150s", f->found ? "writable" : "not writable here", line);
	} else {
		for (unsigned i = 0; i < ARRAY_SIZE(v1); i++) {
			snprintf(line, sizeof line, CGROUP_ROOT "/%s", v1[i]);
			open_to_us += access(line, W_OK) == 0;
		}
		f->found = open_to_us == ARRAY_SIZE(v1);
		say(f, open_to_us ? "v1, %d of cpu, memory and pids writable" : "none writable",
		    open_to_us);
	}
	if (!f->found)
		advise(f, "optional, for limits on VMs: run under systemd with Delegate=yes");
}

static void fact_limit(struct host_fact *f, int resource, uint64_t enough, const char *what)
{
	struct rlimit lim = {};

	getrlimit(resource, &lim);
	f->found = lim.rlim_cur >= enough;
	if (lim.rlim_cur == RLIM_INFINITY)
		say(f, "unlimited");
	else
		say(f, "%llu %s", (unsigned long long)lim.rlim_cur, what);
	if (!f->found)
		advise(f,
		       "at least %llu %s: ulimit, or LimitMEMLOCK= and LimitNOFILE= in the service",
		       (unsigned long long)enough, what);
}

static void fact_memlock(struct host_fact *f)
{
	fact_limit(f, RLIMIT_MEMLOCK, MIB(8), "bytes of memory may be locked");
}

static void fact_nofile(struct host_fact *f)
{
	fact_limit(f, RLIMIT_NOFILE, 1024, "open files");
}

static const struct {
	const char *name;
	void (*look)(struct host_fact *f);
} facts[] = {
	{"kvm", fact_kvm},
	{"bmi2", fact_bmi2},
	{"fsgsbase", fact_fsgsbase},
	{"avx", fact_vectors},
	{"cpuid-faulting", fact_cpuid_faulting},
	{"memfd", fact_memfd},
	{"userfaultfd", fact_userfaultfd},
	{"io_uring", fact_io_uring},
	{"hugetlb", fact_hugetlb},
	{"thp-shmem", fact_thp_shmem},
	{"ksm", fact_ksm},
	{"landlock", fact_landlock},
	{"seccomp", fact_seccomp},
	{"user-namespaces", fact_user_namespaces},
	{"tun", fact_tun},
	{"vhost-net", fact_vhost_net},
	{"cgroup", fact_cgroup},
	{"memlock", fact_memlock},
	{"nofile", fact_nofile},
};

int host_facts(struct host_fact *out, int max)
{
	int n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(facts) && n < max; i++, n++) {
		out[n] = (struct host_fact){};
		snprintf(out[n].name, sizeof out[n].name, "%s", facts[i].name);
		facts[i].look(&out[n]);
	}
	return n;
}
