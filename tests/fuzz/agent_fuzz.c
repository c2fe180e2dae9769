/* What a hostile guest answers to 'holon cp VM:PATH TO': any frames. Nothing may appear outside
 * the directory that it goes to. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/tree.h"

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	return remove(path);
}

/* A directory in a directory of its own, whose only entry it stays. */
static void make_place(char place[64], char inside[80])
{
	const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";

	snprintf(place, 64, "%s/agent_fuzz.XXXXXX", tmp);
	if (!mkdtemp(place))
		abort();
	snprintf(inside, 80, "%s/inside", place);
	if (mkdir(inside, 0700) < 0)
		abort();
}

static unsigned entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct wire w;
	char place[64], inside[80];
	struct err e;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		abort();
	/* Not more than a socket holds. */
	if (send(fd[0], data, len, MSG_DONTWAIT) != (ssize_t)len)
		len = 0;
	shutdown(fd[0], SHUT_WR);
	make_place(place, inside);
	wire_init(&w, fd[1]);
	(void)!tree_receive(&w, inside, NULL, &e);
	wire_done(&w);
	close(fd[0]);
	if (entries(place) != 3) /* with . and .. */
		abort();
	nftw(place, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
