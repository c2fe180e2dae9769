/* calls: which system calls a thread of each role may make when the VM's process is confined, and why.
 *
 * To add one: a line here, with the roles that make it and the reason; conditions on arguments where the call
 * can do more than is needed. Lines of one call stand together; each allows what its conditions describe.
 * CONTRIBUTING.md says how to find out that one is missing. The numbers of KVM, of terminals and of what
 * else ioctl can do are not all listed: of devices, a confined process has those that it opened before.
 *
 * What no line allows ends the process, but those with an error: libraries ask for these and go on without. */
#include "confine/confine_priv.h"

#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/prctl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MAIN    (1u << THREAD_MAIN)
#define VCPU    (1u << THREAD_VCPU)
#define DEVICES (1u << THREAD_DEVICES)
#define DISK    (1u << THREAD_DISK)
#define NET     (1u << THREAD_NET)
#define API     (1u << THREAD_API)
#define WORKER  (1u << THREAD_WORKER)
#define NETWORK (1u << 14) /* net, of a VM that uses the host's network */
#define SERVERS (1u << 15) /* disk and worker, where disks are elsewhere */
#define SHARE   (1u << THREAD_SHARE)
#define ALL     ((1u << THREAD_ROLES) - 1)

#define CALL(name, who, why_)                                                                      \
	{                                                                                          \
#name, __NR_##name, (uint16_t)(who), 0, {{0, 0, 0 } }, why_                        \
	}
#define CALL_IF(name, who, why_, ...)                                                              \
	{                                                                                          \
#name, __NR_##name, (uint16_t)(who), 0, {__VA_ARGS__ }, why_                       \
	}
#define FAILS(name, who, error_, why_)                                                             \
	{                                                                                          \
#name, __NR_##name, (uint16_t)(who), error_, {{0, 0, 0 } }, why_                   \
	}
#define IS(arg, value)                                                                             \
	{                                                                                          \
		arg, UINT32_MAX, value                                                             \
	}
#define LACKS(arg, bits)                                                                           \
	{                                                                                          \
		arg, bits, 0                                                                       \
	}
#define HAS(arg, bits)                                                                             \
	{                                                                                          \
		arg, bits, bits                                                                    \
	}

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)
#define NEW_WORLDS                                                                                 \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |             \
	 CLONE_NEWPID | CLONE_NEWNET)
#define KVM_IOCTLS 0xae00u /* _IO(0xae, ...) whatever the direction and size */
#define SET_VMA    0x53564d41u

const struct call_rule call_rules[] = {
	/* Descriptors that are open. */
	CALL(read, ALL, "eventfds, timers, files, sockets"),
	CALL(write, ALL, "eventfds; the log"),
	CALL(readv, ALL, "frames of a tap; sockets"),
	CALL(writev, ALL, "the same; output in pieces"),
	CALL(pread64, ALL, "disks; a vCPU's waiting time in schedstat"),
	CALL(pwrite64, DISK | WORKER | VCPU, "disks; a firmware's flash file"),
	CALL(preadv, DISK | WORKER | SHARE, "disks without io_uring"),
	CALL(pwritev, DISK | WORKER | SHARE, "the same"),
	CALL(preadv2, DISK | WORKER, "the same"),
	CALL(pwritev2, DISK | WORKER, "the same"),
	CALL(fdatasync, DISK | WORKER | VCPU | SHARE, "a guest's flush; a firmware's flash file"),
	CALL(fsync, DISK | WORKER | SHARE, "a guest's flush, when a file has grown"),
	CALL(sync_file_range, DISK | WORKER, "writeback of what was written"),
	CALL(fallocate, ALL, "discards of disks; guest RAM that is given back: balloon, reset"),
	CALL(ftruncate, DISK | WORKER | SHARE, "images that grow; the JIT's memory at a reset"),
	CALL(lseek, ALL, "holes of images; stdio"),
	CALL(fstat, ALL, "stdio"),
	CALL(statx, DISK | WORKER | SHARE, "sizes of images"),
	CALL(close, ALL, "connections that end"),
	CALL(dup, MAIN | API, "a descriptor that another part owns as well"),
	CALL(dup2, MAIN | API, "the log takes the place of stderr, in the background"),
	CALL(dup3, MAIN | API, "the VM's directory, again in the new root"),
	CALL(fcntl, ALL, "non-blocking; locks of images"),
	CALL(flock, NET | MAIN, "which VM serves a switch"),
	CALL(fchmod, API | NET | SHARE,
	     "sockets that only their owner can reach; what the guest asks for"),

	/* Files. Landlock and the mounts say which; these say who opens any. */
	CALL(openat, MAIN | API | NET | DISK | WORKER | SHARE,
	     "state file; name servers (libslirp); a kernel at a reset; images below others"),
	CALL_IF(openat, ALL, "a spare descriptor; a vCPU's schedstat",
		LACKS(2, O_ACCMODE | O_CREAT)),
	CALL(open, MAIN | API | NET, "as openat, from libraries"),
	CALL(openat2, MAIN | API | SHARE, "as openat"),
	CALL(newfstatat, ALL, "stdio; whether a socket's file is still ours"),
	CALL(stat, ALL, "the same; libslirp looks whether name servers changed"),
	CALL(lstat, ALL, "the same"),
	CALL(statfs, DISK | WORKER | SHARE, "what a file system can do"),
	CALL(fstatfs, DISK | WORKER | SHARE, "the same"),
	CALL(access, MAIN | NET | WORKER, "name service"),
	CALL(faccessat, MAIN | NET | WORKER, "the same"),
	CALL(faccessat2, MAIN | NET | WORKER, "the same"),
	CALL(readlink, MAIN | DISK | WORKER, "realpath of images"),
	CALL(readlinkat, MAIN | DISK | WORKER | SHARE, "the same"),
	CALL(getcwd, MAIN | DISK | WORKER, "the same"),
	CALL(rename, API, "a state file that is replaced as a whole"),
	CALL(renameat, API, "the same"),
	CALL(unlink, DEVICES | API | NET, "sockets, at the end"),
	CALL(unlinkat, DEVICES | API | NET | SHARE, "the same"),

	/* A folder of the host, served to the guest (share/). Landlock holds it to that tree. */
	CALL_IF(unshare, SHARE, "a working directory and umask of the thread's own",
		IS(0, CLONE_FS)),
	CALL(fchdir, SHARE, "to /proc/self/fd, for extended attributes"),
	CALL(umask, SHARE, "the guest's caller has applied its own"),
	CALL(mkdirat, SHARE, "what the guest asks for"),
	CALL(mknodat, SHARE, "the same"),
	CALL(linkat, SHARE, "the same"),
	CALL(symlinkat, SHARE, "the same"),
	CALL(renameat2, SHARE, "the same"),
	CALL(fchown, SHARE, "the same"),
	CALL(fchownat, SHARE, "the same"),
	CALL(fchmodat, SHARE, "the same"),
	CALL(utimensat, SHARE, "the same"),
	CALL(syncfs, SHARE, "the same"),
	CALL(copy_file_range, SHARE, "the same"),
	CALL(setxattr, SHARE, "the same"),
	CALL(getxattr, SHARE, "the same"),
	CALL(listxattr, SHARE, "the same"),
	CALL(removexattr, SHARE, "the same"),
	CALL(capget, SHARE, "whether it can act for others"),
	CALL(setfsuid, SHARE, "files that belong to the guest's caller from the first moment"),
	CALL(setfsgid, SHARE, "the same"),

	/* Memory. Code is made by the main thread alone, for the JIT, when it builds an engine. */
	CALL_IF(mmap, ALL, "allocation; guest RAM in the JIT's windows", LACKS(2, PROT_EXEC)),
	CALL_IF(mmap, MAIN, "the JIT's code, shared with its writable half",
		{2, PROT_WRITE | PROT_EXEC, PROT_EXEC}, HAS(3, MAP_SHARED)),
	FAILS(mmap, ALL, EACCES, "no other code: a library that is loaded late is not"),
	CALL_IF(mprotect, ALL, "allocation; coroutine stacks; the JIT's windows",
		LACKS(2, PROT_EXEC)),
	FAILS(mprotect, ALL, EACCES, "no other code"),
	CALL(munmap, ALL, "allocation"),
	CALL(mremap, ALL, "allocation"),
	CALL(madvise, ALL, "allocation; guest RAM that is given back, or in huge pages"),
	CALL(brk, ALL, "allocation"),
	CALL(mincore, ALL, "whether guest RAM is there already, before it is made huge"),
	CALL(memfd_create, MAIN | DISK | WORKER,
	     "the JIT's code, and a kernel off a disk, at a reset"),
	CALL(msync, DISK | WORKER, "crash-safe images in tests"),

	/* Waiting and time. */
	CALL(futex, ALL, "locks; a halted vCPU's sleep"),
	CALL(futex_waitv, VCPU, "the same"),
	CALL(epoll_wait, ALL, "event loops"),
	CALL(epoll_pwait, ALL, "the same"),
	CALL(epoll_pwait2, ALL, "the same"),
	CALL(epoll_ctl, ALL, "the same; a device that a vCPU starts or stops"),
	CALL(epoll_create1, MAIN | API | NET | DISK, "a loop for what is opened late"),
	CALL(poll, ALL, "connections to disk servers; clients"),
	CALL(ppoll, ALL, "the same"),
	CALL(eventfd2, ALL, "what wakes a loop; a queue's notifications"),
	CALL(timerfd_create, MAIN | API, "how long a guest may take to stop"),
	CALL(timerfd_settime, ALL, "timers of devices"),
	CALL(timerfd_gettime, ALL, "the same"),
	CALL(timer_create, VCPU, "KVM: taking a vCPU out of the guest in time"),
	CALL(timer_settime, VCPU, "the same"),
	CALL(timer_delete, VCPU, "the same, and at a reset"),
	CALL(clock_gettime, ALL, "where the vDSO cannot read the clock"),
	CALL(clock_getres, ALL, "the same"),
	CALL(gettimeofday, ALL, "the same"),
	CALL(time, ALL, "the same"),
	CALL(clock_nanosleep, ALL, "short pauses; CPU caps"),
	CALL(nanosleep, ALL, "the same"),
	CALL(sched_yield, ALL, "spinning locks"),
	CALL(restart_syscall, ALL, "a wait that a stop interrupted"),

	/* Threads and signals, within the process. */
	CALL_IF(clone, MAIN | DISK, "threads", HAS(0, THREAD_FLAGS), LACKS(0, NEW_WORLDS)),
	FAILS(clone3, ALL, ENOSYS, "its flags cannot be looked at; libraries go on with clone"),
	CALL(set_robust_list, ALL, "a thread's beginning"),
	CALL(rseq, ALL, "the same"),
	CALL_IF(prctl, ALL, "a thread's name", IS(0, PR_SET_NAME)),
	CALL_IF(prctl, SHARE, "whether capabilities stay when it acts for others",
		IS(0, PR_GET_SECUREBITS)),
	FAILS(prctl, ALL, EINVAL, "names of memory (malloc of newer C libraries)"),
	CALL(seccomp, DISK, "a thread that a disk starts takes a filter of its own"),
	CALL(exit, ALL, "a thread's end"),
	CALL(exit_group, ALL, "the end"),
	CALL(wait4, API, "the keeper's end"),
	CALL(sched_getaffinity, ALL, "how many CPUs there are"),
	CALL(sched_setaffinity, ALL, "CPUs that a vCPU is bound to"),
	CALL(getdents64, MAIN | SHARE, "which threads there are, to set weights of"),
	CALL(setpriority, MAIN, "weights of threads, where there are no control groups"),
	CALL(getpriority, MAIN, "the same"),
	CALL(ioprio_set, MAIN, "the same, for disks"),
	CALL(getcpu, ALL, "the same"),
	CALL(getrusage, ALL, "figures"),
	CALL(times, ALL, "figures"),
	CALL(sysinfo, ALL, "qsort asks for it, to know how much it may allocate"),
	CALL(uname, ALL, "what a library asks for"),
	CALL(prlimit64, ALL, "stack sizes"),
	CALL(getrlimit, ALL, "the same"),
	CALL(getpid, ALL, "raise"),
	CALL(gettid, ALL, "raise"),
	CALL(getppid, ALL, "whether somebody is still there"),
	CALL(getuid, ALL, "who a client is"),
	CALL(geteuid, ALL, "the same"),
	CALL(getgid, ALL, "the same"),
	CALL(getegid, ALL, "the same"),
	CALL(getpgrp, ALL, "whether the terminal is ours"),
	CALL(rt_sigaction, ALL, "what a crash does"),
	CALL(rt_sigprocmask, ALL, "threads; abort"),
	CALL(rt_sigreturn, ALL, "traps of translated code; a kick's end"),
	CALL(rt_sigtimedwait, VCPU, "KVM: the signal that was a kick"),
	CALL(rt_sigpending, VCPU, "the same"),
	CALL(sigaltstack, ALL, "stacks of signal handlers"),
	CALL_IF(tgkill, ALL, "kicks of vCPUs; raise, abort", IS(0, CALL_OWN_PID)),
	CALL_IF(kill, MAIN, "a terminal's stop", IS(0, CALL_OWN_PID)),
	CALL_IF(arch_prctl, VCPU, "the JIT has its own GS base", IS(0, 0x1001)),
	CALL_IF(arch_prctl, VCPU, "the same", IS(0, 0x1004)),
	CALL(getrandom, ALL, "the entropy device; allocation"),

	/* Devices that are open. */
	CALL_IF(ioctl, ALL, "KVM: interrupts, registers, runs", {1, 0xff00, KVM_IOCTLS}),
	CALL_IF(ioctl, ALL, "a terminal that a crash restores", IS(1, TCGETS)),
	CALL_IF(ioctl, ALL, "the same", IS(1, TCSETS)),
	CALL_IF(ioctl, ALL, "the same", IS(1, TCSETSW)),
	CALL_IF(ioctl, ALL, "the same", IS(1, TCSETSF)),
	CALL_IF(ioctl, MAIN, "whether the terminal is ours", IS(1, TIOCGPGRP)),
	CALL_IF(ioctl, ALL, "the terminal's size", IS(1, TIOCGWINSZ)),
	CALL_IF(ioctl, NET | API | DEVICES, "how much there is to read", IS(1, FIONREAD)),
	CALL_IF(ioctl, NET | API | DEVICES, "non-blocking", IS(1, FIONBIO)),
	CALL_IF(ioctl, NET | VCPU, "a tap's offloads, as the guest wants them",
		IS(1, TUNSETOFFLOAD)),
	CALL_IF(ioctl, DISK | WORKER, "a block device's sector", IS(1, 0x1268 /* BLKSSZGET */)),
	CALL_IF(ioctl, DISK | WORKER, "its size", IS(1, 0x80081272 /* BLKGETSIZE64 */)),

	/* Sockets. */
	CALL_IF(socket, NET | DEVICES | API,
		"a switch; what a guest's vsock connects to; the API's", IS(0, AF_UNIX)),
	CALL_IF(socket, SERVERS, "a disk's server that comes back", IS(0, AF_UNIX)),
	CALL_IF(socket, NETWORK | SERVERS,
		"the guest's connections; a disk's server that comes back", IS(0, AF_INET)),
	CALL_IF(socket, NETWORK | SERVERS, "the same", IS(0, AF_INET6)),
	CALL_IF(socket, SERVERS, "name service looks which addresses there are", IS(0, AF_NETLINK)),
	FAILS(socket, ALL, EAFNOSUPPORT, "no others: a library goes on without"),
	CALL(connect, NET | DEVICES | SERVERS, "the same"),
	CALL(bind, NET | API | SERVERS, "forwarded ports; a switch; the API's"),
	CALL(listen, NET | API, "the same"),
	CALL(accept, NET | DEVICES | API, "clients"),
	CALL(accept4, NET | DEVICES | API, "clients"),
	CALL(getsockopt, ALL, "whether a connection came about; who a client is"),
	CALL(setsockopt, NET | DEVICES | API | WORKER, "TCP without delays"),
	CALL(getsockname, NET | DEVICES | API | WORKER, "libslirp: of forwarded ports"),
	CALL(getpeername, NET | DEVICES | API | WORKER, "libslirp"),
	CALL(sendto, ALL, "sockets; the keeper"),
	CALL(sendmsg, ALL, "the same"),
	CALL(sendmmsg, NET | SERVERS, "name service"),
	CALL(recvfrom, ALL, "sockets"),
	CALL(recvmsg, ALL, "the same; descriptors that come with a request"),
	CALL(recvmmsg, NET, "frames"),
	CALL(shutdown, NET | DEVICES | DISK | WORKER | API, "one half of a connection"),

	/* io_uring: rings are made before, and can do nothing but what disks need (block/io_uring.c). */
	CALL(io_uring_enter, DISK, "disks"),
	FAILS(io_uring_setup, ALL, EPERM, "a new ring could open and connect; threads do it"),
	CALL_IF(io_uring_register, DISK, "a disk's thread takes its ring over", IS(1, 12)),
	FAILS(io_uring_register, ALL, EPERM, "nothing else changes in a ring"),
};

const unsigned call_rules_count = ARRAY_SIZE(call_rules);

uint16_t call_roles(enum thread_role role, const struct confine_profile *p)
{
	uint16_t servers = p && p->disk_servers ? SERVERS : 0;
	uint16_t network = p && p->network ? NETWORK : 0;

	switch (role) {
	case THREAD_MAIN: return ALL | servers | network; /* it starts the others */
	case THREAD_DISK: return DISK | WORKER | servers;
	case THREAD_WORKER: return WORKER | servers;
	case THREAD_NET: return NET | network;
	default: return (uint16_t)(1u << role);
	}
}

/* Those that an intruder is likely to try. */
static const struct {
	long nr;
	const char *name;
} others[] = {
	{__NR_execve, "execve"},
	{__NR_execveat, "execveat"},
	{__NR_fork, "fork"},
	{__NR_vfork, "vfork"},
	{__NR_ptrace, "ptrace"},
	{__NR_setns, "setns"},
	{__NR_mount, "mount"},
	{__NR_chroot, "chroot"},
	{__NR_setuid, "setuid"},
	{__NR_bpf, "bpf"},
	{__NR_keyctl, "keyctl"},
	{__NR_socketpair, "socketpair"},
	{__NR_process_vm_readv, "process_vm_readv"},
	{__NR_process_vm_writev, "process_vm_writev"},
	{__NR_pidfd_open, "pidfd_open"},
	{__NR_userfaultfd, "userfaultfd"},
	{__NR_perf_event_open, "perf_event_open"},
	{__NR_mkdir, "mkdir"},
	{__NR_rmdir, "rmdir"},
	{__NR_symlink, "symlink"},
	{__NR_chmod, "chmod"},
	{__NR_pipe2, "pipe2"},
	{__NR_signalfd4, "signalfd4"},
	{__NR_sendfile, "sendfile"},
	{__NR_splice, "splice"},
	{__NR_membarrier, "membarrier"},
	{__NR_open_by_handle_at, "open_by_handle_at"},
	{__NR_mlock, "mlock"},
	{__NR_sched_setscheduler, "sched_setscheduler"},
	{__NR_rt_tgsigqueueinfo, "rt_tgsigqueueinfo"},
	{__NR_fgetxattr, "fgetxattr"},
	{__NR_utimensat, "utimensat"},
	{__NR_select, "select"},
	{__NR_pselect6, "pselect6"},
};

const char *call_name(long nr)
{
	for (unsigned i = 0; i < call_rules_count; i++)
		if (call_rules[i].nr == nr)
			return call_rules[i].name;
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
		if (others[i].nr == nr)
			return others[i].name;
	return NULL;
}
