/* Messages are structs of one size, each answered by another; it is the same program on both sides. What
 * comes from a VM that was taken over is no more than a name, which is checked as any. */
#include "control/dir_keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SOCKETS_MAX 48u

enum asks { ADD_SOCKET, SEAL, RENAME, RELEASE };

struct message {
	enum asks ask;
	bool keep;
	dev_t dev;
	ino_t ino;
	char text[VM_PATH_MAX];
};

struct answer {
	int result;
	struct err err;
};

/* --- the keeper --- */

struct kept {
	bool sealed;
	struct vm_dir dir;
	struct message socket[SOCKETS_MAX];
	unsigned sockets;
};

static int add_socket(struct kept *k, const struct message *m, struct err *e)
{
	if (k->sealed || k->sockets == SOCKETS_MAX)
		return err_set(e, E2BIG, "too many sockets");
	k->socket[k->sockets++] = *m;
	return 0;
}

static int seal(struct kept *k, const struct message *m, struct err *e)
{
	if (k->sealed)
		return err_set(e, EPERM, "it is sealed");
	k->sealed = true;
	return vm_dir_at(&k->dir, m->text, e);
}

static void remove_sockets(const struct kept *k)
{
	for (unsigned i = 0; i < k->sockets; i++) {
		const struct message *s = &k->socket[i];
		struct stat st;

		if (lstat(s->text, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_dev == s->dev &&
		    st.st_ino == s->ino)
			unlink(s->text);
	}
}

static int do_it(struct kept *k, struct message *m, struct err *e)
{
	m->text[sizeof m->text - 1] = 0;
	switch (m->ask) {
	case ADD_SOCKET: return add_socket(k, m, e);
	case SEAL: return seal(k, m, e);
	case RENAME:
		return k->sealed ? vm_dir_rename(&k->dir, m->text, e)
				 : err_set(e, EPERM, "it is not sealed");
	case RELEASE:
		remove_sockets(k);
		if (k->sealed)
			vm_dir_clear(&k->dir, m->keep);
		return 0;
	}
	return err_set(e, EINVAL, "what is asked is not known");
}

static void serve(int fd)
{
	struct kept k = {.dir.lock = -1};
	struct message m;
	bool over = false;

	while (!over && recv(fd, &m, sizeof m, 0) == sizeof m) {
		struct answer a = {0};

		a.result = do_it(&k, &m, &a.err);
		over = send(fd, &a, sizeof a, MSG_NOSIGNAL) < 0 || m.ask == RELEASE;
	}
}

/* It holds nothing of the VM's open: locks and pipes end with the VM. */
static void let_go(int fd)
{
	int null = open("/dev/null", O_RDWR);

	for (int std = 0; null >= 0 && std < 3; std++)
		dup2(null, std);
	if (fd != 3)
		dup2(fd, 3);
	(void)syscall(SYS_close_range, 4u, ~0u, 0u);
}

static void keep_on(int fd)
{
	setsid();
	prctl(PR_SET_NAME, "holon-keeper");
	let_go(fd);
	serve(3);
	_exit(0);
}

/* --- the VM's side --- */

int dir_keeper_start(struct dir_keeper *k, struct err *e)
{
	int pair[2];
	pid_t pid;

	k->fd = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "the VM's keeper");
	pid = fork();
	if (pid == 0)
		keep_on(pair[1]);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return err_sys(e, errno, "the VM's keeper");
	}
	k->fd = pair[0];
	return 0;
}

static int ask(struct dir_keeper *k, const struct message *m, struct err *e)
{
	struct answer a;

	if (send(k->fd, m, sizeof *m, MSG_NOSIGNAL) < 0 || recv(k->fd, &a, sizeof a, 0) != sizeof a)
		return err_set(e, EPIPE, "the VM's keeper has ended");
	if (a.result < 0 && e)
		*e = a.err;
	return a.result;
}

static int ask_text(struct dir_keeper *k, struct message *m, const char *text, struct err *e)
{
	if (strlen(text) >= sizeof m->text)
		return err_set(e, ENAMETOOLONG, "'%s'", text);
	strcpy(m->text, text);
	return ask(k, m, e);
}

int dir_keeper_add_socket(struct dir_keeper *k, const char *path, struct err *e)
{
	struct message m = {.ask = ADD_SOCKET};
	char *whole = realpath(path, NULL);
	struct stat st;
	int r = 0;

	if (whole && lstat(whole, &st) == 0 && S_ISSOCK(st.st_mode)) {
		m.dev = st.st_dev;
		m.ino = st.st_ino;
		r = ask_text(k, &m, whole, e);
	}
	free(whole);
	return r;
}

int dir_keeper_seal(struct dir_keeper *k, const struct vm_dir *d, struct err *e)
{
	struct message m = {.ask = SEAL};

	return ask_text(k, &m, d->name, e);
}

int dir_keeper_rename(struct dir_keeper *k, struct vm_dir *d, const char *name, struct err *e)
{
	struct message m = {.ask = RENAME};
	int r = ask_text(k, &m, name, e);

	if (r == 0)
		snprintf(d->name, sizeof d->name, "%s", name);
	return r;
}

void dir_keeper_release(struct dir_keeper *k, bool keep)
{
	const struct message m = {.ask = RELEASE, .keep = keep};

	(void)!ask(k, &m, NULL);
	dir_keeper_done(k);
}

void dir_keeper_done(struct dir_keeper *k)
{
	if (k->fd >= 0)
		close(k->fd);
	k->fd = -1;
}
