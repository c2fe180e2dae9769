/* sockets: AF_VSOCK in a guest, for devices_test.py.
 *
 *   sockets echo PORT               takes connections, and sends each's bytes back, until it ends
 *   sockets send PORT COUNT BYTES   COUNT connections at once to the host's PORT, which echoes;
 *                                   checks what comes back
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int new_socket(void)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		fail("socket");
	return fd;
}

static struct sockaddr_vm address(unsigned cid, unsigned port)
{
	return (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
}

static void write_all(int fd, const uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0)
			fail("write");
		p += n;
		len -= (size_t)n;
	}
}

static void echo_one(int fd)
{
	static uint8_t buf[65536];
	ssize_t n;

	while ((n = read(fd, buf, sizeof buf)) > 0)
		write_all(fd, buf, (size_t)n);
	shutdown(fd, SHUT_WR);
	while (read(fd, buf, sizeof buf) > 0)
		;
	exit(0);
}

static void echo(unsigned port)
{
	struct sockaddr_vm a = address(VMADDR_CID_ANY, port);
	int fd = new_socket(), client;

	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 128) < 0)
		fail("listen");
	printf("listening\n");
	fflush(stdout);
	while ((client = accept(fd, NULL, NULL)) >= 0) {
		if (fork() == 0)
			echo_one(client);
		close(client);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	fail("accept");
}

static uint8_t pattern(unsigned who, size_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 7 + who);
}

static void send_one(unsigned port, unsigned who, size_t bytes)
{
	struct sockaddr_vm a = address(VMADDR_CID_HOST, port);
	static uint8_t buf[65536];
	int fd = new_socket();
	size_t done = 0;
	ssize_t n;

	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		fail("connect");
	if (fork() == 0) {
		for (; done < bytes; done += (size_t)n) {
			n = (ssize_t)(bytes - done < sizeof buf ? bytes - done : sizeof buf);
			for (ssize_t i = 0; i < n; i++)
				buf[i] = pattern(who, done + (size_t)i);
			write_all(fd, buf, (size_t)n);
		}
		shutdown(fd, SHUT_WR);
		exit(0);
	}
	for (; (n = read(fd, buf, sizeof buf)) > 0; done += (size_t)n)
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != pattern(who, done + (size_t)i)) {
				fprintf(stderr, "byte %zu differs\n", done + (size_t)i);
				exit(1);
			}
	if (done != bytes) {
		fprintf(stderr, "%zu bytes of %zu came back: %s\n", done, bytes, strerror(errno));
		exit(1);
	}
	wait(NULL);
	exit(0);
}

static int send_many(unsigned port, unsigned count, size_t bytes)
{
	unsigned good = 0;
	int status;

	for (unsigned i = 0; i < count; i++)
		if (fork() == 0)
			send_one(port, i, bytes);
	while (wait(&status) > 0)
		good += status == 0;
	printf("good=%u\n", good);
	return good == count ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "echo"))
		echo((unsigned)atoi(argv[2]));
	if (argc == 5 && !strcmp(argv[1], "send"))
		return send_many((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]),
				 (size_t)atoll(argv[4]));
	return 2;
}
