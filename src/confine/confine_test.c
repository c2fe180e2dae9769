#include "confine/confine_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"

#define OWN              4711u
#define ALLOWED(v)       ((v) == SECCOMP_RET_ALLOW)
#define TRAPPED(v)       ((v) == SECCOMP_RET_TRAP)
#define FAILED(v, error) ((v) == (SECCOMP_RET_ERRNO | (uint32_t)(error)))

static const struct confine_profile user_net = {.network = true};

/* What the kernel would do with the filter. */
static uint32_t verdict(enum thread_role role, long nr, uint64_t a0, uint64_t a1, uint64_t a2,
			uint64_t a3)
{
	const struct seccomp_data d = {
		.nr = (int)nr, .arch = AUDIT_ARCH_X86_64, .args = {a0, a1, a2, a3}};
	struct sock_filter code[FILTER_MAX];
	unsigned n = filter_make(code, call_roles(role, &user_net), OWN);
	uint32_t a = 0;

	assert_true(n > 0);
	for (unsigned i = 0; i < n; i++) {
		const struct sock_filter *f = &code[i];

		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			assert_true(f->k % 4 == 0 && f->k < sizeof d);
			memcpy(&a, (const char *)&d + f->k, sizeof a);
			break;
		case BPF_ALU | BPF_AND | BPF_K: a &= f->k; break;
		case BPF_JMP | BPF_JEQ | BPF_K: i += a == f->k ? f->jt : f->jf; break;
		case BPF_JMP | BPF_JGE | BPF_K: i += a >= f->k ? f->jt : f->jf; break;
		case BPF_RET | BPF_K: return f->k;
		default: fail();
		}
	}
	fail();
	return 0;
}

static void rules_are_sound(void **state)
{
	for (unsigned i = 0; i < call_rules_count; i++) {
		const struct call_rule *r = &call_rules[i];

		assert_true(r->roles && r->why && *r->why);
		for (unsigned j = 0; j < ARRAY_SIZE(r->test); j++)
			assert_true(r->test[j].arg < 6 && (r->test[j].value == CALL_OWN_PID ||
							   !(r->test[j].value & ~r->test[j].mask)));
		/* Apart from each other, the second would never be reached. */
		for (unsigned j = 0; j + 1 < i; j++)
			assert_true(call_rules[j].nr != r->nr || call_rules[i - 1].nr == r->nr);
	}
}

static void nobody_runs_programs_or_leaves(void **state)
{
	static const long never[] = {SYS_execve,      SYS_execveat,
				     SYS_fork,        SYS_vfork,
				     SYS_ptrace,      SYS_unshare,
				     SYS_setns,       SYS_mount,
				     SYS_setuid,      SYS_bpf,
				     SYS_keyctl,      SYS_open_by_handle_at,
				     SYS_userfaultfd, SYS_process_vm_readv,
				     SYS_pidfd_open};

	for (int role = 0; role < THREAD_ROLES; role++) {
		for (unsigned i = 0; i < ARRAY_SIZE(never); i++)
			assert_true(TRAPPED(verdict(role, never[i], 0, 0, 0, 0)));
		assert_true(TRAPPED(verdict(role, 0x40000000 | SYS_read, 0, 0, 0, 0)));
		assert_true(TRAPPED(verdict(role, SYS_tgkill, OWN + 1, 1, SIGKILL, 0)));
		assert_true(ALLOWED(verdict(role, SYS_tgkill, OWN, 1, SIGSYS, 0)));
		assert_true(TRAPPED(verdict(role, SYS_clone, SIGCHLD, 0, 0, 0)));
		assert_true(FAILED(verdict(role, SYS_clone3, 0, 0, 0, 0), ENOSYS));
		assert_true(FAILED(verdict(role, SYS_io_uring_setup, 8, 0, 0, 0), EPERM));
		assert_true(ALLOWED(verdict(role, SYS_read, 0, 0, 0, 0)));
	}
}

static void code_is_made_by_the_main_thread_alone(void **state)
{
	const uint64_t rx = PROT_READ | PROT_EXEC, rwx = rx | PROT_WRITE;

	for (int role = 0; role < THREAD_ROLES; role++) {
		assert_true(ALLOWED(verdict(role, SYS_mmap, 0, 1, PROT_READ, MAP_PRIVATE)));
		assert_true(FAILED(verdict(role, SYS_mmap, 0, 1, rwx, MAP_SHARED), EACCES));
		assert_true(FAILED(verdict(role, SYS_mmap, 0, 1, rx, MAP_PRIVATE), EACCES));
		assert_true(FAILED(verdict(role, SYS_mprotect, 0, 1, rx, 0), EACCES));
		if (role != THREAD_MAIN)
			assert_true(FAILED(verdict(role, SYS_mmap, 0, 1, rx, MAP_SHARED), EACCES));
	}
	assert_true(ALLOWED(verdict(THREAD_MAIN, SYS_mmap, 0, 1, rx, MAP_SHARED)));
}

static void roles_differ(void **state)
{
	const uint64_t create = O_WRONLY | O_CREAT;

	assert_true(TRAPPED(verdict(THREAD_VCPU, SYS_connect, 0, 0, 0, 0)));
	assert_true(FAILED(verdict(THREAD_VCPU, SYS_socket, AF_INET, 0, 0, 0), EAFNOSUPPORT));
	assert_true(ALLOWED(verdict(THREAD_NET, SYS_socket, AF_INET, 0, 0, 0)));
	assert_true(FAILED(verdict(THREAD_NET, SYS_socket, AF_PACKET, 0, 0, 0), EAFNOSUPPORT));
	assert_true(TRAPPED(verdict(THREAD_VCPU, SYS_openat, 0, 0, create, 0)));
	assert_true(ALLOWED(verdict(THREAD_VCPU, SYS_openat, 0, 0, O_RDONLY | O_CLOEXEC, 0)));
	assert_true(FAILED(verdict(THREAD_DISK, SYS_socket, AF_INET, 0, 0, 0), EAFNOSUPPORT));
	assert_true(TRAPPED(verdict(THREAD_DEVICES, SYS_io_uring_enter, 0, 0, 0, 0)));
	assert_true(ALLOWED(verdict(THREAD_DISK, SYS_io_uring_enter, 0, 0, 0, 0)));
}

/* A thread has the filter of the one that made it as well. */
static void who_starts_threads_allows_what_they_may(void **state)
{
	const struct confine_profile all = {.network = true, .disk_servers = true};

	for (int role = 0; role < THREAD_ROLES; role++)
		assert_int_equal(call_roles(role, &all) & ~call_roles(THREAD_MAIN, &all), 0);
	assert_true(call_roles(THREAD_DISK, &all) & 1 << THREAD_WORKER);
	assert_true(TRAPPED(verdict(THREAD_VCPU, SYS_clone, 0x3d0f00, 0, 0, 0)));
	assert_true(ALLOWED(verdict(THREAD_DISK, SYS_clone, 0x3d0f00, 0, 0, 0)));
}

/* --- in earnest, in a child --- */

static char folder[] = "/tmp/holon-confine-test-XXXXXX";

static int make_folder(void **state)
{
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[64];

	snprintf(command, sizeof command, "rm -r %s", folder);
	return system(command);
}

static bool opens(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool writes(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

#define EXPECT(what)                                                                               \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s is false\n", #what);                                   \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static void confine_child(struct confine_state *s, int note)
{
	struct confine_profile p = {.violation_fd = note};
	struct err err = {0};

	EXPECT(confine_allow(&p, folder, CONFINE_MANAGE, &err) == 0);
	EXPECT(confine_allow(&p, "/etc/hostname", CONFINE_READ, &err) == 0);
	EXPECT(confine_allow(&p, "/no/such/file", CONFINE_READ, &err) == 0);
	EXPECT(confine_enter(&p, false, s, &err) == 0);
	confine_profile_done(&p);
}

static void sees_its_files_alone(void)
{
	struct confine_state s;

	EXPECT(opens("/etc/passwd"));
	confine_child(&s, -1);
	if (!(s.layers & (CONFINE_LANDLOCK | CONFINE_NAMESPACES)))
		_exit(77);
	EXPECT(!opens("/etc/passwd"));
	EXPECT(!opens("/"));
	EXPECT(!opens("/proc/1/status"));
	EXPECT(opens("/proc/self/statm"));
	EXPECT(writes("new"));
	EXPECT(access("/no/such/file", F_OK) < 0);
}

static void ends_by_a_forbidden_call(void)
{
	char path[128];
	struct confine_state s;

	snprintf(path, sizeof path, "%s/died", folder);
	confine_child(&s, open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	if (!(s.layers & CONFINE_SECCOMP))
		_exit(77);
	syscall(SYS_execve, "/bin/true", NULL, NULL);
}

static int in_child(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGSYS, SIG_DFL); /* cmocka has a handler */
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void skip_where_it_cannot_be(int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
}

static void a_confined_process_sees_its_files_alone(void **state)
{
	int status = in_child(sees_its_files_alone);

	skip_where_it_cannot_be(status);
	assert_int_equal(status, 0);
}

static void a_forbidden_call_ends_it_with_a_word(void **state)
{
	char path[128], text[160] = "";
	int status = in_child(ends_by_a_forbidden_call), fd;

	skip_where_it_cannot_be(status);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
	snprintf(path, sizeof path, "%s/died", folder);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
	close(fd);
	assert_string_equal(text, "forbidden call: execve by a thread of role main\n");
}

static void paths_are_noted_once_with_the_most(void **state)
{
	struct confine_profile p = {0};
	struct err err = {0};

	assert_int_equal(confine_allow(&p, "/tmp/", CONFINE_MANAGE, &err), 0);
	assert_int_equal(confine_allow(&p, "/tmp", CONFINE_READ, &err), 0);
	assert_int_equal(confine_allow(&p, "/tmp/.", CONFINE_CONNECT, &err), 0);
	assert_int_equal(confine_allow(&p, NULL, CONFINE_READ, &err), 0);
	assert_int_equal(p.paths, 1);
	assert_string_equal(p.path[0].path, "/tmp");
	assert_int_equal(p.path[0].access, CONFINE_MANAGE);
	confine_profile_done(&p);
	assert_int_equal(p.paths, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rules_are_sound),
		cmocka_unit_test(nobody_runs_programs_or_leaves),
		cmocka_unit_test(code_is_made_by_the_main_thread_alone),
		cmocka_unit_test(roles_differ),
		cmocka_unit_test(who_starts_threads_allows_what_they_may),
		cmocka_unit_test(paths_are_noted_once_with_the_most),
		cmocka_unit_test(a_confined_process_sees_its_files_alone),
		cmocka_unit_test(a_forbidden_call_ends_it_with_a_word),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
