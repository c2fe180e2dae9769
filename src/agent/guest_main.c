/* holon-agent: runs in a guest and does there what 'holon exec' and 'holon cp' ask for. It
 * listens on vsock port 909, takes connections of the host alone, and forks for each. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
/* wants sys/socket.h first */
#include <linux/vm_sockets.h>

#include "agent/guest.h"
#include "agent/init.h"
#include "base/auto.h"

#define INSTALLED "/usr/local/sbin/holon-agent"
#define UNIT      "/etc/systemd/system/holon-agent.service"

static const char unit[] = "[Unit]\n"
			   "Description=Holon guest agent\n"
			   "DefaultDependencies=no\n"
			   "After=local-fs.target\n"
			   "Conflicts=shutdown.target\n"
			   "Before=shutdown.target\n"
			   "ConditionVirtualization=vm\n"
			   "\n"
			   "[Service]\n"
			   "ExecStart=" INSTALLED "\n"
			   "Restart=on-failure\n"
			   "KillMode=mixed\n"
			   "OOMScoreAdjust=-900\n"
			   "\n"
			   "[Install]\n"
			   "WantedBy=sysinit.target\n";

static const char usage[] =
	"usage: holon-agent [--install | --unit | --help]\n"
	"Does in this guest what 'holon exec' and 'holon cp' on its host ask for, as root.\n"
	"  --install  Copy this program to " INSTALLED " and, where there is\n"
	"             systemd, start it now and at each boot.\n"
	"  --unit     Print the unit for that.\n";

/* --- listening --- */

static int listen_here(struct err *e)
{
	struct sockaddr_vm a = {
		.svm_family = AF_VSOCK, .svm_port = AGENT_PORT, .svm_cid = VMADDR_CID_ANY};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_sys(e, errno, "no vsock here");
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 16) < 0) {
		err_sys(e, errno, "vsock port %d", AGENT_PORT);
		close(fd);
		return -e->code;
	}
	return fd;
}

static void accept_one(int listener)
{
	struct sockaddr_vm a = {0};
	socklen_t len = sizeof a;
	int fd = accept4(listener, (struct sockaddr *)&a, &len, SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno != EINTR && errno != ECONNABORTED)
			sleep(1); /* no memory, no descriptors: perhaps soon */
		return;
	}
	/* A program of this guest could come by the loopback. */
	if (a.svm_cid == VMADDR_CID_HOST && fork() == 0) {
		close(listener);
		signal(SIGCHLD, SIG_DFL);
		guest_serve(fd);
		_exit(0);
	}
	close(fd);
}

/* --- installing --- */

static int copy_self(struct err *e)
{
	AUTO_CLOSE int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int to;
	char buf[65536];
	ssize_t n = -1;

	unlink(INSTALLED); /* it may be running */
	to = open(INSTALLED, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	if (from < 0 || to < 0)
		return err_sys(e, errno, "'" INSTALLED "'");
	while ((n = read(from, buf, sizeof buf)) > 0)
		if (write(to, buf, (size_t)n) != n) {
			n = -1;
			break;
		}
	if (n < 0 || close(to) < 0)
		return err_sys(e, errno, "write '" INSTALLED "'");
	return 0;
}

static int install(struct err *e)
{
	FILE *f;
	int r = copy_self(e);

	if (r < 0)
		return r;
	if (access("/run/systemd/system", F_OK) < 0) {
		puts(INSTALLED " is there. No systemd runs here: have your init start it.");
		return 0;
	}
	f = fopen(UNIT, "we");
	if (!f || fputs(unit, f) < 0 || fclose(f) != 0)
		return err_sys(e, errno, "write '" UNIT "'");
	if (system("systemctl daemon-reload && systemctl --quiet enable holon-agent && "
		   "systemctl restart holon-agent") != 0)
		return err_set(e, EIO, "systemctl failed");
	puts("holon-agent is installed and runs.");
	return 0;
}

static int serve_all(void)
{
	struct err e = {0};
	int fd = listen_here(&e);

	if (fd < 0) {
		fprintf(stderr, "holon-agent: %s\n", e.text);
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); /* nobody asks how they ended */
	for (;;)
		accept_one(fd);
}

static void serve(void)
{
	(void)!serve_all();
}

int main(int argc, char **argv)
{
	struct err e = {0};

	if (getpid() == 1 && access(INIT_FILE, R_OK) == 0)
		guest_init(serve);
	if (argc > 1 && !strcmp(argv[1], "--install") && argc == 2) {
		if (install(&e) == 0)
			return 0;
		fprintf(stderr, "holon-agent: %s\n", e.text);
		return 1;
	}
	if (argc == 2 && !strcmp(argv[1], "--unit")) {
		fputs(unit, stdout);
		return 0;
	}
	if (argc > 1) {
		bool help = !strcmp(argv[1], "--help");

		fputs(usage, help ? stdout : stderr);
		return help ? 0 : 1;
	}
	return serve_all();
}
