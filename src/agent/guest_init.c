/* The first process of a VM that runs a container's image. It brings up what a container expects
 * to find, runs the one command on the console, and ends the VM with its exit status. */
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent/guest.h"
#include "agent/init.h"
#include "base/auto.h"

#define DISK         "/dev/vda"
#define ROOT         "/newroot"
#define WORDS_MAX    4096
#define MODULES_MAX  64
#define DISK_SECONDS 20
#define KEYS_MAX     8

struct run {
	char *arg[WORDS_MAX + 1], *env[WORDS_MAX + 1], *module[MODULES_MAX];
	unsigned args, envs, modules;
	const char *dir, *user, *host, *console;
	int stop_signal;
	bool tty, keep;
};

static void complain(const char *what)
{
	fprintf(stderr, "holon: %s: %s\n", what, strerror(errno));
}

/* --- what the host wants --- */

static void take(struct run *r, char *item)
{
	char *text = item + 1;

	switch ((enum init_item) * item) {
	case INIT_MODULE:
		if (r->modules < MODULES_MAX)
			r->module[r->modules++] = text;
		break;
	case INIT_ARG:
		if (r->args < WORDS_MAX)
			r->arg[r->args++] = text;
		break;
	case INIT_ENV:
		if (r->envs < WORDS_MAX)
			r->env[r->envs++] = text;
		break;
	case INIT_DIR: r->dir = text; break;
	case INIT_USER: r->user = text; break;
	case INIT_HOST: r->host = text; break;
	case INIT_SIGNAL: r->stop_signal = atoi(text); break;
	case INIT_TTY: r->tty = true; break;
	case INIT_CONSOLE: r->console = text; break;
	case INIT_KEEP: r->keep = true; break;
	}
}

static void read_run(struct run *r)
{
	static char text[INIT_MAX + 1];
	AUTO_CLOSE int fd = open(INIT_FILE, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, INIT_MAX);

	for (char *p = text; n > 0 && p < text + n; p += strlen(p) + 1)
		take(r, p);
}

/* --- what the command finds --- */

static void load_modules(const struct run *r)
{
	for (unsigned i = 0; i < r->modules; i++) {
		AUTO_CLOSE int fd = open(r->module[i], O_RDONLY | O_CLOEXEC);

		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			complain(r->module[i]);
	}
}

static bool mount_root(void)
{
	mkdir(ROOT, 0755);
	for (unsigned i = 0; i < DISK_SECONDS * 100; i++) {
		/* The file system is new and sparse: its inode tables are zeros already. */
		if (mount(DISK, ROOT, "ext4", 0, "noinit_itable") == 0)
			return true;
		if (errno != ENOENT && errno != ENXIO)
			break;
		usleep(10000);
	}
	complain("mount " DISK);
	return false;
}

static void mount_at(const char *type, const char *at, unsigned long flags, const char *data)
{
	mkdir(at, 0755);
	if (mount(type, at, type, flags, data) < 0)
		complain(at);
}

static void make_link(const char *to, const char *at)
{
	(void)!symlink(to, at);
}

/* The new root becomes the only one. */
static bool enter_root(void)
{
	const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0) {
		complain("enter the image");
		return false;
	}
	mount_at("proc", "/proc", safe, NULL);
	mount_at("sysfs", "/sys", safe, NULL);
	mount_at("devtmpfs", "/dev", MS_NOSUID, NULL);
	mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5");
	mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_at("mqueue", "/dev/mqueue", safe, NULL);
	mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
	if (access("/sys/fs/cgroup", F_OK) == 0)
		mount_at("cgroup2", "/sys/fs/cgroup", safe, NULL);
	make_link("/proc/self/fd", "/dev/fd");
	make_link("/proc/self/fd/0", "/dev/stdin");
	make_link("/proc/self/fd/1", "/dev/stdout");
	make_link("/proc/self/fd/2", "/dev/stderr");
	mkdir("/tmp", 01777);
	return true;
}

static void write_file(const char *path, const char *text)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		complain(path);
}

static void set_names(const struct run *r)
{
	char hosts[256];

	if (!r->host)
		return;
	(void)!sethostname(r->host, strlen(r->host));
	snprintf(hosts, sizeof hosts, "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t%s\n",
		 r->host);
	mkdir("/etc", 0755);
	write_file("/etc/hosts", hosts);
	write_file("/etc/hostname", r->host);
}

/* --- the command --- */

/* "NAME|UID[:GROUP|GID]" of an image's configuration. */
static int find_user(const char *text, struct guest_user *u, struct err *e)
{
	AUTO_FREE char *who = strdup(text ? text : "");
	char *group = who ? strchr(who, ':') : NULL;
	int r;

	if (!who)
		return err_set(e, ENOMEM, "out of memory");
	if (group)
		*group++ = 0;
	r = guest_user_find(*who ? who : NULL, u, e);
	return r < 0 || !group || !*group ? r : guest_group_find(group, &u->gid, e);
}

static void set_environment(const struct run *r, const struct guest_user *u)
{
	clearenv();
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", u->home, 1);
	if (r->host)
		setenv("HOSTNAME", r->host, 1);
	if (r->tty)
		setenv("TERM", "xterm", 1);
	for (unsigned i = 0; i < r->envs; i++)
		putenv(r->env[i]);
}

/* Without somebody at it the console carries bytes as they are. */
static void set_terminal(int fd, bool tty)
{
	struct termios t;

	if (tcgetattr(fd, &t) < 0)
		return;
	if (tty)
		t.c_lflag |= ICANON | ECHO | ISIG;
	else
		cfmakeraw(&t);
	tcsetattr(fd, TCSANOW, &t);
}

static void open_console(const struct run *r)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/dev/%s", r->console ? r->console : "ttyS0");
	fd = open(path, O_RDWR);
	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	set_terminal(fd, r->tty);
	ioctl(fd, TIOCSCTTY, 1);
	dup2(fd, 1);
	dup2(fd, 2);
	if (!r->tty) { /* nobody types */
		close(fd);
		fd = open("/dev/null", O_RDONLY);
	}
	dup2(fd, 0);
	if (fd > 2)
		close(fd);
}

static _Noreturn void become(struct run *r)
{
	struct guest_user u;
	struct err e = {0};
	int status = 127;

	setsid();
	open_console(r);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigprocmask(SIG_SETMASK, &(sigset_t){0}, NULL);
	umask(022);
	if (find_user(r->user, &u, &e) < 0)
		goto failed;
	set_environment(r, &u);
	/* A directory that the configuration names is made, as others do. */
	if (r->dir && access(r->dir, F_OK) < 0)
		mkdir(r->dir, 0755);
	if (chdir(r->dir ? r->dir : "/") < 0) {
		err_sys(&e, errno, "'%s'", r->dir);
		goto failed;
	}
	if (guest_user_become(&u, &e) < 0)
		goto failed;
	execvp(r->arg[0], r->arg);
	status = errno == ENOENT || errno == ENOTDIR ? 127 : 126;
	err_sys(&e, errno, "'%s'", r->arg[0]);
	fprintf(stderr, "holon: %s\n", e.text);
	_exit(status);
failed:
	fprintf(stderr, "holon: %s\n", e.text);
	_exit(125);
}

/* --- until it ends --- */

static unsigned open_keys(struct pollfd *to)
{
	unsigned n = 0;
	char path[40];

	for (unsigned i = 0; i < KEYS_MAX; i++) {
		snprintf(path, sizeof path, "/dev/input/event%u", i);
		to[n].fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		to[n].events = POLLIN;
		n += to[n].fd >= 0;
	}
	return n;
}

static bool power_pressed(int fd)
{
	struct input_event e;
	bool pressed = false;

	while (read(fd, &e, sizeof e) == sizeof e)
		pressed |= e.type == EV_KEY && e.code == KEY_POWER && e.value == 1;
	return pressed;
}

/* Takes what has ended, orphans too; true when the command was among it. */
static bool reap(pid_t command, int *status)
{
	bool found = false;
	int s;

	for (pid_t pid; (pid = waitpid(-1, &s, WNOHANG)) > 0;)
		if (pid == command) {
			*status = WIFSIGNALED(s) ? 128 + WTERMSIG(s) : WEXITSTATUS(s);
			found = true;
		}
	return found;
}

static int supervise(struct run *r, pid_t command, int deaths)
{
	struct pollfd p[1 + KEYS_MAX] = {{deaths, POLLIN, 0}};
	unsigned n = 1 + open_keys(p + 1);
	struct signalfd_siginfo info;
	int status = 125;

	while (!reap(command, &status)) {
		poll(p, n, -1);
		while (read(deaths, &info, sizeof info) > 0)
			;
		for (unsigned i = 1; i < n; i++)
			if (power_pressed(p[i].fd))
				kill(command, r->stop_signal ? r->stop_signal : SIGTERM);
	}
	return status;
}

static int run_command(struct run *r)
{
	sigset_t set;
	int deaths;
	pid_t command;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	deaths = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	command = fork();
	if (command == 0)
		become(r);
	if (command < 0 || deaths < 0) {
		complain("start the command");
		return 125;
	}
	return supervise(r, command, deaths);
}

/* --- the end --- */

static _Noreturn void leave(const struct run *r, int status)
{
	AUTO_CLOSE int console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);

	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	if (console >= 0)
		tcdrain(console);
	if (r->keep) {
		sync();
		mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	}
	if (iopl(3) == 0)
		outb((unsigned char)status, INIT_PORT);
	reboot(RB_POWER_OFF); /* a machine without that port */
	for (;;)
		pause();
}

_Noreturn void guest_init(void (*serve)(void))
{
	static struct run r;
	int status = 125;

	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL);
	for (int fd = 0; fd < 3; fd++) /* the kernel had no console to give */
		if (fcntl(fd, F_GETFD) < 0)
			(void)!open("/dev/console", O_RDWR);
	read_run(&r);
	load_modules(&r);
	if (r.args && mount_root() && enter_root()) {
		set_names(&r);
		guest_net_up();
		if (fork() == 0) {
			serve();
			_exit(0);
		}
		status = run_command(&r);
	}
	leave(&r, status);
}
