/* holon agent: hands out the program for guests. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/beside.h"
#include "cli/cli.h"

static int copy(const char *from, const char *to, struct err *e)
{
	AUTO_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC);
	AUTO_CLOSE int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	ssize_t n;

	if (in < 0 || out < 0)
		return err_sys(e, errno, "'%s'", in < 0 ? from : to);
	while ((n = sendfile(out, in, NULL, 1 << 20)) > 0)
		;
	return n < 0 ? err_sys(e, errno, "write '%s'", to) : 0;
}

int cmd_agent(const void *opts, int words, char **word)
{
	char path[PATH_MAX];
	struct err e = {0};
	int r = find_beside("holon-agent", path, sizeof path, &e);

	if (r == 0 && words == 0)
		puts(path);
	else if (r == 0)
		r = copy(path, word[0], &e);
	if (r < 0)
		fprintf(stderr, "holon agent: %s\n", e.text);
	return r < 0 ? EXIT_TROUBLE : EXIT_DONE;
}
