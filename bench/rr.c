/* rr: one byte there and one byte back over TCP, again and again, as netperf's TCP_RR.
 *
 *   rr server PORT              answers, each connection in turn
 *   rr client ADDR PORT SECONDS prints round trips a second */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int stop(const char *what)
{
	perror(what);
	return 1;
}

static int serve(int fd, struct sockaddr_in *a)
{
	int on = 1;
	char c;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)a, sizeof *a) < 0 || listen(fd, 4) < 0)
		return stop("listen");
	for (;;) {
		int peer = accept(fd, NULL, NULL);

		if (peer < 0)
			return stop("accept");
		setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		while (read(peer, &c, 1) == 1 && write(peer, &c, 1) == 1)
			;
		close(peer);
	}
}

static int ask(int fd, const struct sockaddr_in *a, double seconds)
{
	double start, end;
	unsigned long n = 0;
	int on = 1;
	char c = 0;

	if (connect(fd, (const struct sockaddr *)a, sizeof *a) < 0)
		return stop("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	for (start = end = now(); end - start < seconds; end = now(), n++)
		if (write(fd, &c, 1) != 1 || read(fd, &c, 1) != 1)
			return stop("round trip");
	printf("rr %.0f\n", (double)n / (end - start));
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0)
		return stop("socket");
	if (argc == 3 && !strcmp(argv[1], "server")) {
		a.sin_port = htons((unsigned short)atoi(argv[2]));
		return serve(fd, &a);
	}
	if (argc != 5 || strcmp(argv[1], "client") ||
	    inet_pton(AF_INET, argv[2], &a.sin_addr) != 1) {
		fputs("usage: rr server PORT | rr client ADDR PORT SECONDS\n", stderr);
		return 1;
	}
	a.sin_port = htons((unsigned short)atoi(argv[3]));
	return ask(fd, &a, atof(argv[4]));
}
