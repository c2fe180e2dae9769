#include "cli/run_oci.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/beside.h"
#include "cli/image.h"
#include "oci/oci.h"
#include "oci/start.h"

bool run_oci_is(const char *word)
{
	return !strncmp(word, RUN_OCI_PREFIX, strlen(RUN_OCI_PREFIX));
}

int run_oci_image(const struct store *st, const char *word, struct store_image *i, struct err *e)
{
	struct pull_telling t;
	int r = pull_telling_begin(&t, "run", e);

	if (r < 0)
		return r;
	t.brief = true;
	r = oci_get(st, word + strlen(RUN_OCI_PREFIX), false, &t.watcher, i, e);
	pull_telling_end(&t);
	return r;
}

/* --- the kernel --- */

/* What a program writes, without its last newline. */
static int output_of(const char *program, const char *word, char *to, size_t room, struct err *e)
{
	int fd[2], status;
	size_t had = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		return err_sys(e, errno, "run '%s'", program);
	if (pid == 0) {
		dup2(fd[1], 1);
		execl(program, program, word, (char *)NULL);
		_exit(127);
	}
	close(fd[1]);
	while (had < room - 1 && (n = read(fd[0], to + had, room - 1 - had)) > 0)
		had += (size_t)n;
	close(fd[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	to[had] = 0;
	to[strcspn(to, "\n")] = 0;
	return status == 0 && *to
		       ? 0
		       : err_set(e, ENOENT,
				 "there is no kernel: '%s' failed; --kernel FILE names one "
				 "with the drivers built in",
				 program);
}

static int find_kernel(struct run_oci *r, char root[PATH_MAX], struct err *e)
{
	char program[PATH_MAX], pattern[PATH_MAX + 16];
	glob_t found = {0};
	int ret = find_beside("fetch-kernel", program, sizeof program, e);

	if (ret < 0 || (ret = output_of(program, "--root", root, PATH_MAX, e)) < 0)
		return ret;
	snprintf(pattern, sizeof pattern, "%s/boot/vmlinuz-*", root);
	if (glob(pattern, 0, NULL, &found) == 0)
		r->kernel = strdup(found.gl_pathv[0]);
	globfree(&found);
	return r->kernel ? 0 : err_set(e, ENOENT, "there is no kernel in '%s'", root);
}

/* --- */

int run_oci_init(struct run_oci *r, const struct run_opts *o, const struct store_image *i,
		 const char *hostname, bool keep, char *const *command, unsigned commands,
		 struct err *e)
{
	char agent[PATH_MAX], root[PATH_MAX];
	const struct oci_start s = {
		.config = json_object_get(json_object_get(i->info, "oci"), "config"),
		.command = command,
		.commands = commands,
		.user = o->user,
		.hostname = hostname,
		.console = o->console ? "hvc0" : "ttyS0",
		.tty = o->detach || isatty(STDIN_FILENO) == 1,
		.keep = keep,
		.agent = agent,
		.kernel_root = o->kernel ? NULL : root};
	int ret = find_beside("holon-agent", agent, sizeof agent, e);

	if (ret < 0)
		return ret;
	if (!o->kernel)
		ret = find_kernel(r, root, e);
	else if (!(r->kernel = strdup(o->kernel)))
		ret = err_set(e, ENOMEM, "out of memory");
	if (ret < 0 || (ret = oci_initramfs(&s, &r->initrd, e)) < 0)
		return ret;
	snprintf(r->initrd_path, sizeof r->initrd_path, "/proc/self/fd/%d", r->initrd);
	snprintf(r->append, sizeof r->append, "console=%s quiet panic=-1%s%s", s.console,
		 o->append ? " " : "", o->append ? o->append : "");
	return 0;
}

void run_oci_done(struct run_oci *r)
{
	free(r->kernel);
	if (r->initrd >= 0)
		close(r->initrd);
	*r = (struct run_oci){.initrd = -1};
}
