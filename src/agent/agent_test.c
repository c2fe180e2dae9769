/* Client and agent at the two ends of a socket pair, the agent in a process of its own that runs
 * commands of this host. */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/client.h"
#include "agent/guest.h"

static struct wire w;
static struct err e;
static pid_t agent;
static char dir[] = "/tmp/holon-agent-XXXXXX";

static int make_dir(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", dir, dir);
	return system(command);
}

static int connect_agent(void **state)
{
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		return -1;
	fflush(NULL);
	agent = fork();
	if (agent == 0) {
		close(fd[0]);
		guest_serve(fd[1]);
		_exit(0);
	}
	close(fd[1]);
	wire_init(&w, fd[0]);
	e = (struct err){0};
	return 0;
}

/* The agent's process always ends with its connection. */
static int leave(void **state)
{
	if (w.fd >= 0)
		wire_done(&w);
	return waitpid(agent, NULL, 0) == agent ? 0 : -1;
}

static int again(void)
{
	return leave(NULL) || connect_agent(NULL);
}

/* The path of name in the directory of this run. */
static const char *in_dir(const char *name)
{
	static char path[4][256];
	static unsigned n;

	n = (n + 1) % 4;
	snprintf(path[n], sizeof path[n], "%s/%s", dir, name);
	return path[n];
}

static void start(const char *script)
{
	const char *const argv[] = {"sh", "-c", script};

	assert_int_equal(agent_exec(&w, &(struct agent_exec){.argv = argv, .args = 3}, &e), 0);
}

struct result {
	char out[65536], err[4096];
	size_t out_len, err_len, out_all;
	int status;
};

static struct result result;

static void collect(void)
{
	struct frame f;

	memset(&result, 0, sizeof result);
	for (;;) {
		assert_int_equal(wire_next(&w, &f, &e), 0);
		if (f.type == WIRE_OUT) {
			size_t n = sizeof result.out - 1 - result.out_len;

			n = f.len < n ? f.len : n;
			memcpy(result.out + result.out_len, f.data, n);
			result.out_len += n;
			result.out_all += f.len;
		} else if (f.type == WIRE_ERR) {
			assert_true(result.err_len + f.len < sizeof result.err);
			memcpy(result.err + result.err_len, f.data, f.len);
			result.err_len += f.len;
		} else {
			assert_int_equal(agent_status(&f, &result.status, &e), 0);
			return;
		}
	}
}

static void say(const char *text)
{
	assert_int_equal(wire_send(&w, WIRE_IN, text, strlen(text), &e), 0);
}

/* --- exec --- */

static void a_commands_output_and_status_come_back(void **state)
{
	start("echo out; echo err >&2; exit 7");
	collect();
	assert_string_equal(result.out, "out\n");
	assert_string_equal(result.err, "err\n");
	assert_int_equal(result.status, 7);
	again();
	start("kill -9 $$");
	collect();
	assert_int_equal(result.status, 128 + 9);
}

static void words_and_variables_arrive_as_they_are(void **state)
{
	const char *const argv[] = {"sh", "-c", "printf '%s|' \"$@\" \"$X\"; pwd", "sh", "a b",
				    "",   "*"};
	const char *const env[] = {"X=1 2"};
	const struct agent_exec x = {.argv = argv, .args = 7, .env = env, .envs = 1, .dir = "/usr"};

	assert_int_equal(agent_exec(&w, &x, &e), 0);
	collect();
	assert_string_equal(result.out, "a b||*|1 2|/usr\n");
}

static void input_reaches_the_command_until_its_end(void **state)
{
	start("cat; echo end");
	say("one\n");
	say("two\n");
	say("");
	collect();
	assert_string_equal(result.out, "one\ntwo\nend\n");
}

static void what_cannot_be_started_says_why(void **state)
{
	const char *const none[] = {"no-such-program-here"}, *const data[] = {"/etc/passwd"};

	assert_int_equal(agent_exec(&w, &(struct agent_exec){.argv = none, .args = 1}, &e),
			 -ENOENT);
	assert_non_null(strstr(e.text, "no-such-program-here"));
	again();
	assert_int_equal(agent_exec(&w, &(struct agent_exec){.argv = data, .args = 1}, &e),
			 -EACCES);
	again();
	assert_int_equal(agent_exec(&w, &(struct agent_exec){.user = "nobody-of-that-name"}, &e),
			 -EINVAL);
	again();
	assert_int_equal(agent_exec(&w, &(struct agent_exec){.dir = "/no/such/place"}, &e),
			 -EINVAL);
}

static void neither_direction_waits_for_the_other(void **state)
{
	static char block[WIRE_MAX];
	size_t sent = 0;
	struct frame f;
	int r;

	/* Sixteen MiB through cat, whose output is not read before no more input goes. */
	start("cat");
	for (;;) {
		while (wire_room(&w, sizeof block) && sent < MIB(16)) {
			wire_put(&w, WIRE_IN, block, sizeof block);
			sent += sizeof block;
		}
		r = wire_flush(&w);
		assert_true(r == 0 || r == -EAGAIN);
		if (r == -EAGAIN && poll(&(struct pollfd){w.fd, POLLOUT, 0}, 1, 200) == 0)
			break;
		assert_true(sent < MIB(16));
	}
	for (size_t got = 0; got < sent - sizeof block;) {
		/* What is left to write goes as room is made. */
		r = wire_flush(&w);
		assert_true(r == 0 || r == -EAGAIN);
		r = wire_get(&w, &f);
		if (r == -EAGAIN) {
			poll(&(struct pollfd){w.fd, POLLIN, 0}, 1, -1);
			continue;
		}
		assert_int_equal(r, 0);
		assert_int_equal(f.type, WIRE_OUT);
		got += f.len;
	}
}

static void all_of_a_large_output_comes_before_the_end(void **state)
{
	start("head -c 5000000 /dev/zero");
	collect();
	assert_int_equal(result.out_all, 5000000);
	assert_int_equal(result.status, 0);
}

static void a_child_left_behind_is_not_waited_for(void **state)
{
	start("sleep 1000 & echo $!");
	collect();
	assert_int_equal(result.status, 0);
	assert_int_equal(kill(atoi(result.out), SIGKILL), 0);
}

static void signals_reach_the_command(void **state)
{
	uint8_t sig[4] = {SIGTERM};

	start("trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
	for (struct frame f; wire_next(&w, &f, &e) == 0 && f.type != WIRE_OUT;)
		;
	assert_int_equal(wire_send(&w, WIRE_SIGNAL, sig, 4, &e), 0);
	collect();
	assert_string_equal(result.out, "told\n");
	assert_int_equal(result.status, 3);
}

static void a_terminal_has_a_size_and_an_end(void **state)
{
	const char *const argv[] = {"sh", "-c", "stty size; tty | cut -c1-8; cat"};
	const struct agent_exec x = {
		.argv = argv, .args = 3, .tty = true, .rows = 33, .columns = 111};

	assert_int_equal(agent_exec(&w, &x, &e), 0);
	say("");
	collect();
	assert_non_null(strstr(result.out, "33 111\r\n/dev/pts"));
	assert_int_equal(result.status, 0);
}

static void a_client_that_leaves_takes_its_command_along(void **state)
{
	int pid;
	struct frame f;

	start("echo $$; exec sleep 1000");
	assert_int_equal(wire_next(&w, &f, &e), 0);
	pid = atoi((char *)f.data);
	assert_true(pid > 1);
	wire_done(&w);
	for (int i = 0; i < 3000 && kill(pid, 0) == 0; i++)
		usleep(10000);
	assert_int_equal(kill(pid, 0), -1);
}

/* --- cp --- */

static void write_file(const char *path, const char *text, mode_t mode)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	chmod(path, mode);
}

static void assert_equal_trees(const char *a, const char *b)
{
	char command[600];

	/* Names, kinds, permissions, times, link targets, then contents. */
	snprintf(command, sizeof command,
		 "cd %s && find . ! -type l -printf '%%P %%y %%m %%T@\\n' -o -printf '%%P %%l\\n' |"
		 "sort >%s/a && cd %s && find . ! -type l -printf '%%P %%y %%m %%T@\\n' -o -printf "
		 "'%%P %%l\\n' | sort >%s/b && cmp %s/a %s/b && diff -r --no-dereference %s %s",
		 a, dir, b, dir, dir, dir, a, b);
	assert_int_equal(system(command), 0);
}

static void make_tree(const char *at)
{
	char command[600];

	snprintf(
		command, sizeof command,
		"rm -rf %s; mkdir -p %s/sub/deep %s/empty && cd %s && echo text >file && : >none &&"
		"head -c 300000 /dev/urandom >sub/deep/big && ln -s nowhere link && ln -s sub dirlink &&"
		"chmod 640 file && chmod 555 sub/deep && touch -d @1234567890.5 file sub empty",
		at, at, at, at);
	assert_int_equal(system(command), 0);
}

static void a_tree_arrives_as_it_is_in_both_directions(void **state)
{
	make_tree(in_dir("tree"));
	assert_int_equal(mkdir(in_dir("into"), 0755), 0);
	/* Into a directory by its own name; as a new name. */
	assert_int_equal(agent_put(&w, NULL, in_dir("tree"), in_dir("into"), NULL, &e), 0);
	assert_equal_trees(in_dir("tree"), in_dir("into/tree"));
	again();
	assert_int_equal(agent_get(&w, NULL, in_dir("tree"), in_dir("copy"), NULL, &e), 0);
	assert_equal_trees(in_dir("tree"), in_dir("copy"));
	again(); /* over what is there: the same again */
	assert_int_equal(agent_get(&w, NULL, in_dir("tree"), in_dir("into/"), NULL, &e), 0);
	assert_equal_trees(in_dir("tree"), in_dir("into/tree"));
}

static void a_file_is_written_over_and_a_link_is_not_followed(void **state)
{
	struct stat st;

	write_file(in_dir("source"), "new", 0644);
	write_file(in_dir("victim"), "victim", 0600);
	assert_int_equal(symlink("victim", in_dir("target")), 0);
	assert_int_equal(agent_put(&w, NULL, in_dir("source"), in_dir("target"), NULL, &e), 0);
	assert_int_equal(lstat(in_dir("target"), &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(st.st_size, 3);
	assert_int_equal(stat(in_dir("victim"), &st), 0);
	assert_int_equal(st.st_size, 6);
}

static void trouble_says_which_file(void **state)
{
	write_file(in_dir("source"), "new", 0644);
	assert_int_equal(agent_put(&w, NULL, in_dir("source"), "/no/such/place/x", NULL, &e),
			 -ENOENT);
	assert_non_null(strstr(e.text, "/no/such/place"));
	again();
	assert_int_equal(agent_get(&w, NULL, in_dir("missing"), in_dir("y"), NULL, &e), -ENOENT);
	assert_non_null(strstr(e.text, "missing"));
}

/* --- lies --- */

static void entry(struct wire *to, char kind, const char *name, uint64_t size, const char *target)
{
	uint8_t buf[512] = {(uint8_t)kind};
	size_t n = strlen(name) + 1, t = strlen(target) + 1;

	store_le(buf + 4, 0644, 4);
	store_le(buf + 8, size, 8);
	memcpy(buf + 24, name, n);
	memcpy(buf + 24 + n, target, t);
	wire_put(to, WIRE_ENTRY, buf, 24 + n + t);
}

/* What the other end says, before it ends; received into the directory of this run. */
static int receive_lies(void (*lie)(struct wire *))
{
	static struct wire liar, us;
	int fd[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	wire_init(&liar, fd[0]);
	wire_init(&us, fd[1]);
	lie(&liar);
	assert_int_equal(wire_flush(&liar), 0);
	wire_done(&liar);
	r = tree_receive(&us, dir, NULL, &e);
	wire_done(&us);
	return r;
}

static void climbs(struct wire *l)
{
	entry(l, 'f', "../escaped", 0, "");
}

static void climbs_by_link(struct wire *l)
{
	entry(l, 'd', "d", 0, "");
	entry(l, 'l', "out", 0, "/tmp");
	entry(l, 'd', "out", 0, "");
	entry(l, 'f', "escaped", 0, "");
	wire_put(l, WIRE_UP, NULL, 0);
	wire_put(l, WIRE_UP, NULL, 0);
	wire_put(l, WIRE_END, NULL, 0);
}

static void is_no_name(struct wire *l)
{
	entry(l, 'd', "..", 0, "");
}

static void sends_too_much(struct wire *l)
{
	entry(l, 'f', "f", 1, "");
	wire_put(l, WIRE_DATA, "ab", 2);
}

static void goes_up_too_far(struct wire *l)
{
	wire_put(l, WIRE_UP, NULL, 0);
}

static void has_two_roots(struct wire *l)
{
	entry(l, 'f', "f", 0, "");
	entry(l, 'f', "g", 0, "");
}

static void is_cut_off(struct wire *l)
{
	wire_put(l, WIRE_ENTRY, "d\0\0\0", 4);
}

static void ends_in_the_middle(struct wire *l)
{
	entry(l, 'f', "f", 100, "");
	wire_put(l, WIRE_END, NULL, 0);
}

static void nests_without_end(struct wire *l)
{
	for (int i = 0; i < 300; i++)
		entry(l, 'd', "n", 0, "");
}

static void a_tree_that_lies_is_refused_and_leads_nowhere(void **state)
{
	static void (*const lies[])(struct wire *) = {
		climbs,        is_no_name, sends_too_much,     goes_up_too_far,
		has_two_roots, is_cut_off, ends_in_the_middle, nests_without_end};

	for (unsigned i = 0; i < ARRAY_SIZE(lies); i++)
		assert_int_equal(receive_lies(lies[i]), -EPROTO);
	assert_true(receive_lies(climbs_by_link) < 0);
	assert_int_equal(access("/tmp/escaped", F_OK), -1);
}

static void frames_that_are_none_end_the_connection(void **state)
{
	static const uint8_t bad[][8] = {
		{0}, {0xff}, {WIRE_HELLO, 0, 0, 1}, {WIRE_HELLO, 0, 0, 0, 0, 0, 1, 1}};
	struct frame f;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(send(w.fd, bad[i], 8, 0), 8);
		assert_int_equal(wire_next(&w, &f, &e), 0);
		assert_int_equal(f.type, WIRE_FAIL);
		again();
	}
	/* Another version is told ours. */
	assert_int_equal(wire_send(&w, WIRE_HELLO, (uint8_t[]){99, WIRE_EXEC}, 2, &e), 0);
	assert_int_equal(wire_next(&w, &f, &e), 0);
	frame_failed(&f, &e);
	assert_non_null(strstr(e.text, "version 1"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, connect_agent, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_commands_output_and_status_come_back),
		T(words_and_variables_arrive_as_they_are),
		T(input_reaches_the_command_until_its_end),
		T(what_cannot_be_started_says_why),
		T(neither_direction_waits_for_the_other),
		T(all_of_a_large_output_comes_before_the_end),
		T(a_child_left_behind_is_not_waited_for),
		T(signals_reach_the_command),
		T(a_terminal_has_a_size_and_an_end),
		T(a_client_that_leaves_takes_its_command_along),
		T(a_tree_arrives_as_it_is_in_both_directions),
		T(a_file_is_written_over_and_a_link_is_not_followed),
		T(trouble_says_which_file),
		T(a_tree_that_lies_is_refused_and_leads_nowhere),
		T(frames_that_are_none_end_the_connection),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
