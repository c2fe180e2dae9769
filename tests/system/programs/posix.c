/* posix DIR: what the file system of DIR, an empty folder, answers to some thousand calls; one line for each.
 * No line says whether an answer is right: those of a share in a guest must be those of the host's file system
 * itself, line by line (shares_test.py). Run as root, so that several users can be tried.
 *
 * Each part begins in a folder of its own, and works on every type of file where it can. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <grp.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define ROOT     0
#define ANN      1001 /* in her own group */
#define BOB      1002 /* in his own, and in ANN's */

static const char *part;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	va_list args;

	printf("%s: ", part);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
}

static const char *error(int r)
{
	return r < 0 ? strerrorname_np(errno) : "ok";
}

/* A call that answers 0 or an error; the rest says what was tried. */
#define TRY(call, ...)                                                                             \
	do {                                                                                       \
		int r_ = (int)(call);                                                              \
		const char *e_ = error(r_);                                                        \
                                                                                                   \
		printf("%s: %s", part, #call);                                                     \
		printf(" " __VA_ARGS__);                                                           \
		printf(": %s\n", e_);                                                              \
	} while (0)

/* --- as somebody else --- */

static void become(unsigned who)
{
	gid_t more = ANN;

	if (setgroups(who == BOB, &more) < 0 || setresgid(who, who, who) < 0 ||
	    setresuid(who, who, who) < 0)
		abort();
}

static bool child(unsigned who)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		become(who);
	else
		waitpid(pid, NULL, 0);
	return pid == 0;
}

/* What follows happens in a child, as that user. */
#define AS(who) for (bool in_ = child(who); in_; in_ = false, fflush(stdout), _exit(0))

/* --- what a file is now --- */

static void look(const char *name)
{
	struct stat st;

	if (lstat(name, &st) < 0) {
		say("%.40s is not there: %s", name, error(-1));
		return;
	}
	say("%.40s is %o, %d links, of %u:%u, %lld bytes", name, st.st_mode,
	    S_ISDIR(st.st_mode) ? -1 : (int)st.st_nlink, st.st_uid, st.st_gid,
	    S_ISREG(st.st_mode) ? (long long)st.st_size : -1);
}

/* mtime and ctime as compared with those before. */
static struct stat before;
static void remember(const char *name)
{
	if (lstat(name, &before) < 0)
		memset(&before, 0, sizeof before);
	usleep(12000); /* more than a tick of file times */
}
static void times_now(const char *name)
{
	struct stat st;

	if (lstat(name, &st) < 0)
		return;
	say("%s: mtime %s, ctime %s", name,
	    memcmp(&st.st_mtim, &before.st_mtim, sizeof st.st_mtim) ? "new" : "old",
	    memcmp(&st.st_ctim, &before.st_ctim, sizeof st.st_ctim) ? "new" : "old");
}

static void put(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		say("cannot make %s: %s", name, error(-1));
	close(fd);
}

static const char *const kinds[] = {"file",     "dir",  "full", "link",
				    "dangling", "fifo", "none", "loop"};

static void make_kinds(void)
{
	put("file", "some text\n");
	mkdir("dir", 0755);
	mkdir("full", 0755);
	put("full/inner", "x");
	(void)!symlink("file", "link");
	(void)!symlink("nowhere", "dangling");
	(void)!symlink("loop", "loop");
	mkfifo("fifo", 0644);
}

static void remove_kinds(void)
{
	unlink("full/inner");
	for (unsigned i = 0; i < COUNT(kinds); i++)
		if (unlink(kinds[i]) < 0)
			rmdir(kinds[i]);
}

static void each_kind(void (*fn)(const char *kind))
{
	for (unsigned i = 0; i < COUNT(kinds); i++) {
		make_kinds();
		fn(kinds[i]);
		remove_kinds();
	}
}

/* --- parts --- */

static void open_kind(const char *k)
{
	static const int how[] = {O_RDONLY | O_NONBLOCK,
				  O_RDWR | O_NONBLOCK,
				  O_WRONLY | O_TRUNC | O_NONBLOCK,
				  O_RDONLY | O_DIRECTORY,
				  O_RDONLY | O_NOFOLLOW | O_NONBLOCK,
				  O_RDWR | O_CREAT | O_NONBLOCK,
				  O_RDWR | O_CREAT | O_EXCL,
				  O_PATH,
				  O_PATH | O_NOFOLLOW,
				  O_RDWR | O_APPEND | O_NONBLOCK};

	for (unsigned i = 0; i < COUNT(how); i++) {
		int fd = open(k, how[i], 0640);

		say("open %s %o: %s", k, how[i], error(fd));
		if (fd >= 0)
			close(fd);
	}
	look(k);
	look("nowhere");
	unlink("nowhere");
}

static void change_kind(const char *k)
{
	static const mode_t modes[] = {0, 0111, 0644, 01777, 02755, 04755, 06711, 07777};

	for (unsigned i = 0; i < COUNT(modes); i++) {
		TRY(chmod(k, modes[i]), " %s %o", k, modes[i]);
		look(k);
	}
	TRY(chown(k, 5, 6), " %s", k);
	look(k);
	TRY(lchown(k, 7, 8), " %s", k);
	look(k);
	look("file");
	TRY(chown(k, -1, 9), " %s", k);
	TRY(chown(k, -1, -1), " %s", k);
	look(k);
	TRY(truncate(k, 3), " %s", k);
	TRY(truncate(k, -1), " %s", k);
	TRY(truncate(k, 1 << 20), " %s", k);
	look(k);
	TRY(access(k, R_OK | W_OK), " %s", k);
	TRY(access(k, X_OK), " %s", k);
}

static void name_kind(const char *k)
{
	char path[64], target[64] = "";

	TRY(mkdir(k, 0700), " %s", k);
	TRY(mkfifo(k, 0600), " %s", k);
	TRY(symlink("t", k), " %s", k);
	TRY(link(k, "hard"), " %s", k);
	look(k);
	look("hard");
	unlink("hard");
	TRY(linkat(AT_FDCWD, k, AT_FDCWD, "hard", AT_SYMLINK_FOLLOW), " %s", k);
	look("hard");
	unlink("hard");
	TRY(link("full/inner", k), " %s", k);
	TRY(readlink(k, target, sizeof target - 1) < 0 ? -1 : 0, " %s", k);
	say("readlink %s", target);
	snprintf(path, sizeof path, "%s/below", k);
	TRY(mkdir(path, 0700), " %s", path);
	TRY(rmdir(path), " %s", path);
	snprintf(path, sizeof path, "%s/", k);
	TRY(rmdir(path), " %s", path);
	look(k);
	make_kinds();
	TRY(rmdir(k), " %s", k);
	TRY(unlink(k), " %s", k);
	TRY(unlink(k), " %s again", k);
	look(k);
}

static void rename_kind(const char *k)
{
	static const unsigned flags[] = {0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT,
					 0x80};
	char to[32];

	for (unsigned f = 0; f < COUNT(flags); f++)
		for (unsigned i = 0; i < COUNT(kinds); i++) {
			make_kinds();
			snprintf(to, sizeof to, "%s", kinds[i]);
			TRY(syscall(SYS_renameat2, AT_FDCWD, k, AT_FDCWD, to, flags[f]),
			    " %s to %s, %x", k, to, flags[f]);
			look(k);
			look(to);
			remove_kinds();
			unlink("full/inner");
		}
	make_kinds();
	snprintf(to, sizeof to, "%s/x", k);
	TRY(rename(k, to), " %s", k);
	TRY(rename(k, "dir/moved"), " %s", k);
	look("dir/moved");
	rename("dir/moved/inner", "full/inner");
	if (unlink("dir/moved") < 0)
		rmdir("dir/moved");
	TRY(rename(k, "nodir/x"), " %s", k);
	TRY(rename(k, "file/x"), " %s", k);
	TRY(rename("full/..", "x"));
	TRY(rename(".", "x"));
}

static void times_kind(const char *k)
{
	const struct timespec set[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
	const struct timespec now[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
	const struct timespec wrong[2] = {{0, 2000000000}, {0, 0}};
	const struct timespec far[2] = {{-1000, 5}, {INT64_C(5000000000), 7}};
	struct stat st;

	TRY(utimensat(AT_FDCWD, k, set, AT_SYMLINK_NOFOLLOW), " %s", k);
	if (lstat(k, &st) == 0)
		say("%ld.%ld %ld.%ld", st.st_atim.tv_sec, st.st_atim.tv_nsec, st.st_mtim.tv_sec,
		    st.st_mtim.tv_nsec);
	TRY(utimensat(AT_FDCWD, k, far, AT_SYMLINK_NOFOLLOW), " %s", k);
	if (lstat(k, &st) == 0)
		say("%ld.%ld %ld.%ld", st.st_atim.tv_sec, st.st_atim.tv_nsec, st.st_mtim.tv_sec,
		    st.st_mtim.tv_nsec);
	TRY(utimensat(AT_FDCWD, k, wrong, AT_SYMLINK_NOFOLLOW), " %s", k);
	remember(k);
	TRY(utimensat(AT_FDCWD, k, now, AT_SYMLINK_NOFOLLOW), " %s", k);
	times_now(k);
	remember(k);
	TRY(chmod(k, 0700), " %s", k);
	times_now(k);
	remember(k);
	TRY(link(k, "hard"), " %s", k);
	times_now(k);
	unlink("hard");
	remember(k);
	TRY(rename(k, "other"), " %s", k);
	times_now("other");
	rename("other", k);
	remember(".");
	TRY(mkdir("new", 0700));
	times_now(".");
	rmdir("new");
	remember("file");
	TRY(truncate("file", 2));
	times_now("file");
	remember("full");
	put("full/inner", "other");
	times_now("full");
	remember("full");
	unlink("full/inner");
	times_now("full");
}

/* Who may do what, in folders and with files of several modes. */
static void permissions(void)
{
	static const mode_t modes[] = {0,    0100, 0200, 0300, 0400, 0500, 0700,  0070,
				       0020, 0050, 0007, 0005, 0003, 0777, 01777, 02775};
	static const unsigned who[] = {ANN, BOB, 2000};
	char name[64];

	for (unsigned m = 0; m < COUNT(modes); m++) {
		mkdir("d", 0777);
		chown("d", ANN, ANN);
		put("d/f", "text");
		chown("d/f", ANN, ANN);
		chmod("d/f", modes[m] & 0777);
		put("d/root", "root's");
		mkdir("d/sub", 0777);
		chown("d/sub", BOB, BOB);
		chmod("d", modes[m]);
		for (unsigned w = 0; w < COUNT(who); w++) {
			AS(who[w])
			{
				int fd;

				snprintf(name, sizeof name, "d/of%u", who[w]);
				say("as %u in %o", who[w], modes[m]);
				TRY(access("d/f", R_OK));
				TRY(access("d/f", W_OK));
				TRY(access("d/f", X_OK));
				fd = open("d/f", O_RDWR);
				say("open rw %s", error(fd));
				fd = open("d/f", O_RDONLY);
				say("open r %s", error(fd));
				fd = open("d", O_RDONLY | O_DIRECTORY);
				say("list %s", error(fd));
				fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0666);
				say("create %s", error(fd));
				TRY(chmod("d/f", modes[m] & 0777));
				TRY(chown("d/f", who[w], -1));
				TRY(chown("d/f", -1, ANN));
				TRY(truncate("d/f", 4));
				TRY(utimensat(AT_FDCWD, "d/f", NULL, 0));
				TRY(rename("d/f", "d/g"));
				TRY(rename("d/g", "d/f"));
				TRY(link("d/f", "d/l"));
				TRY(unlink("d/l"));
				TRY(rename("d/root", "d/root2"));
				TRY(rename("d/root2", "d/root"));
				TRY(rename("d/sub", "d/sub2"));
				TRY(rename("d/sub2", "d/sub"));
				TRY(rmdir("d/sub"));
			}
			mkdir("d/sub", 0777);
			chown("d/sub", BOB, BOB);
			look(name);
			unlink(name);
			look("d/sub");
		}
		chmod("d", 0777);
		unlink("d/f");
		unlink("d/l");
		unlink("d/root");
		rmdir("d/sub");
		rmdir("d");
	}
}

/* Bits that writing, truncating and changing owners take away; groups that folders hand on. */
static void set_ids(void)
{
	/* Not 02644: whether a stranger's write takes that bit away changed with Linux 6.2, and a guest's kernel may
	 * be older than the host's. */
	static const mode_t modes[] = {04755, 02755, 06755, 02711, 04644, 04711, 06777};
	static const unsigned who[] = {ROOT, ANN, 2000};

	chmod(".", 0777);
	for (unsigned m = 0; m < COUNT(modes); m++)
		for (unsigned w = 0; w < COUNT(who); w++)
			for (int what = 0; what < 6; what++) {
				put("f", "text");
				chown("f", ANN, ANN);
				chmod("f", modes[m] | 022);
				AS(who[w])
				{
					int fd = what < 3 ? open("f",
								 O_RDWR | (what == 2 ? O_TRUNC : 0))
							  : -1;

					if (what == 0)
						say("write %s", error(write(fd, "x", 1)));
					if (what == 1)
						TRY(ftruncate(fd, 2));
					if (what == 3)
						TRY(truncate("f", 100));
					if (what == 4)
						TRY(chown("f", -1, who[w]));
					if (what == 5)
						TRY(chmod("f", modes[m]));
				}
				say("after %d by %u of %o", what, who[w], modes[m]);
				look("f");
				unlink("f");
			}
	mkdir("g", 0777);
	chown("g", ROOT, BOB);
	chmod("g", 02777);
	for (unsigned w = 0; w < COUNT(who); w++) {
		AS(who[w])
		{
			umask(022);
			put("g/f", "x");
			look("g/f");
			TRY(chmod("g/f", 02755));
			look("g/f");
			TRY(mkdir("g/d", 0777));
			look("g/d");
			TRY(symlink("x", "g/l"));
			look("g/l");
			TRY(mkfifo("g/p", 0666));
			look("g/p");
			umask(0);
			close(open("g/exec", O_CREAT | O_WRONLY, 02777));
			look("g/exec");
		}
		unlink("g/f");
		rmdir("g/d");
		unlink("g/l");
		unlink("g/p");
		unlink("g/exec");
	}
	rmdir("g");
}

static void masks(void)
{
	static const mode_t mask[] = {0, 022, 027, 077, 0777};

	for (unsigned i = 0; i < COUNT(mask); i++) {
		umask(mask[i]);
		close(open("f", O_CREAT | O_WRONLY, 07777));
		TRY(mkdir("d", 07777));
		TRY(mkfifo("p", 0777));
		TRY(mknod("n", S_IFREG | 0777, 0));
		TRY(mknod("s", S_IFSOCK | 0777, 0));
		umask(0);
		look("f");
		look("d");
		look("p");
		look("n");
		look("s");
		unlink("f");
		unlink("p");
		unlink("n");
		unlink("s");
		rmdir("d");
	}
}

static void names(void)
{
	char name[300], path[5000];

	for (int len = 253; len <= 257; len++) {
		memset(name, 'n', sizeof name);
		name[len] = 0;
		TRY(mkdir(name, 0700), " %d", len);
		TRY(rename(name, "short"), " %d", len);
		TRY(rename("short", name), " %d", len);
		TRY(rmdir(name), " %d", len);
		TRY(symlink("x", name), " %d", len);
		TRY(link(name, "short"), " %d", len);
		unlink(name);
		unlink("short");
	}
	TRY(mkdir("", 0700));
	TRY(mkdir(".", 0700));
	TRY(mkdir("..", 0700));
	TRY(rmdir("."));
	TRY(rmdir(".."));
	TRY(unlink("."));
	TRY(mkdir("a\nb\x01\xff", 0700));
	look("a\nb\x01\xff");
	TRY(rmdir("a\nb\x01\xff"));
	for (int len = 4090; len <= 4097; len++) {
		memset(path, 't', sizeof path);
		path[len] = 0;
		TRY(symlink(path, "long"), " %d", len);
		say("%zd", readlink("long", path, sizeof path));
		unlink("long");
	}
	TRY(symlink("", "empty"));
	(void)!symlink("..", "up");
	TRY(rmdir("up"));
	TRY(chdir("up"));
	TRY(chdir("names"));
	unlink("up");
}

static void contents(void)
{
	static char buf[1 << 20], got[1 << 20];
	int fd = open("f", O_RDWR | O_CREAT, 0644), other = open("g", O_RDWR | O_CREAT, 0644), end;
	off_t from = 0, to = 100;
	char *map;

	for (unsigned i = 0; i < sizeof buf; i++)
		buf[i] = (char)(i * 2654435761u >> 24);
	say("%zd", pwrite(fd, buf, sizeof buf, 12345));
	say("%zd", pread(fd, got, sizeof got, 12345));
	say("same %d", !memcmp(buf, got, sizeof buf));
	say("%zd", pread(fd, got, sizeof got, (1 << 20) + 12340));
	say("%zd", pread(fd, got, 10, INT64_C(1) << 40));
	say("%zd %s", pwrite(fd, "x", 1, INT64_C(1) << 41), "far");
	look("f");
	say("data %ld", (long)lseek(fd, 12345, SEEK_DATA) >> 12);
	say("hole %s", lseek(fd, 12345, SEEK_HOLE) > 1 << 20 ? "behind" : "before");
	say("data %s", error(lseek(fd, INT64_C(1) << 42, SEEK_DATA) < 0 ? -1 : 0));
	say("end %ld", (long)lseek(fd, 0, SEEK_END));
	TRY(ftruncate(fd, 5000));
	look("f");
	TRY(ftruncate(fd, 2 << 20));
	say("%zd %d", pread(fd, got, 100, 5000), got[0] | got[99]);
	TRY(fallocate(fd, 0, 0, 3 << 20));
	look("f");
	TRY(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 4 << 20));
	look("f");
	TRY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 12288, 4096));
	TRY(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 12288, 4096));
	TRY(fallocate(fd, FALLOC_FL_ZERO_RANGE, 100, 50));
	TRY(fallocate(fd, 0, -1, 50));
	TRY(fallocate(fd, 0, 0, 0));
	say("%zd", pread(fd, got, 4000, 12345));
	say("zeros %d", !got[0] && !got[3999]);
	say("copied %zd", (ssize_t)copy_file_range(fd, &from, other, &to, 5000, 0));
	look("g");
	say("%zd", pread(other, got, 100, 100));
	say("%s", error(copy_file_range(fd, &from, other, &to, 10, 1) < 0 ? -1 : 0));
	end = open("g", O_WRONLY | O_APPEND);
	say("%zd", pwrite(end, "end", 3, 0));
	say("%zd", write(end, "end", 3));
	look("g");
	say("%s", error(read(end, got, 1) < 0 ? -1 : 0));
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
	say("map %d", map != MAP_FAILED);
	if (map != MAP_FAILED) {
		memcpy(map + 10, "mapped", 6);
		TRY(msync(map, 8192, MS_SYNC));
		say("%zd %.6s", pread(other, got, 6, 10), got);
		munmap(map, 8192);
	}
	TRY(fsync(fd));
	TRY(fdatasync(fd));
	TRY(unlink("f"));
	say("%zd", pwrite(fd, "still", 5, 0));
	say("%zd %.5s", pread(fd, got, 5, 0), got);
	TRY(fchmod(fd, 0600));
	TRY(ftruncate(fd, 2));
	TRY(flock(fd, LOCK_EX));
	close(fd);
	close(other);
	close(end);
	fd = open("f", O_RDWR | O_CREAT | O_EXCL | O_DIRECT, 0644);
	say("direct %s", error(fd));
	close(fd);
	fd = open(".", O_RDWR | O_TMPFILE, 0640);
	say("tmpfile %s", fd >= 0 || errno == EOPNOTSUPP ? "ok or none" : error(fd));
	close(fd);
	fd = open(".", O_RDONLY);
	say("read of a folder %s", error((int)read(fd, got, 10)));
	TRY(fsync(fd));
	close(fd);
	fd = open("f", O_RDONLY);
	say("write to what is open for reading %s", error((int)write(fd, "x", 1)));
	TRY(ftruncate(fd, 1));
	TRY(fallocate(fd, 0, 0, 10));
	close(fd);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void listing(void)
{
	static char *name[3000];
	unsigned n = 0;
	struct dirent *e;
	DIR *d;
	char path[300];
	long at = 0;

	mkdir("many", 0755);
	for (int i = 0; i < 1500; i++) {
		snprintf(path, sizeof path, "many/file-%d-%s", i,
			 i % 3 ? "short" : "a somewhat longer name");
		close(open(path, O_CREAT | O_WRONLY, 0644));
	}
	d = opendir("many");
	while ((e = readdir(d)) && n < COUNT(name)) {
		if (n == 700)
			at = telldir(d);
		name[n++] = strdup(e->d_name);
	}
	qsort(name, n, sizeof *name, compare);
	say("%u names", n);
	for (unsigned i = 0; i < n; i++)
		say("%s", name[i]);
	seekdir(d, at);
	for (n = 0; readdir(d);)
		n++;
	say("%u after seeking", n);
	rewinddir(d);
	for (n = 0; (e = readdir(d));) {
		snprintf(path, sizeof path, "many/%s", e->d_name);
		n += unlink(path) == 0;
	}
	say("%u removed while reading", n);
	closedir(d);
	TRY(rmdir("many"));
	d = opendir(".");
	mkdir("gone", 0700);
	TRY(chdir("gone"));
	TRY(rmdir("../gone"));
	TRY(mkdir("x", 0700));
	TRY(chdir(".."));
	say("%d", chdir("listing"));
	closedir(d);
}

static void attributes(void)
{
	char list[200], value[300] = "";
	ssize_t n;

	make_kinds();
	for (unsigned i = 0; i < COUNT(kinds); i++) {
		TRY(lsetxattr(kinds[i], "user.a", "one", 3, XATTR_CREATE), " %s", kinds[i]);
		TRY(lsetxattr(kinds[i], "user.a", "two", 3, XATTR_CREATE), " %s", kinds[i]);
		TRY(lsetxattr(kinds[i], "user.b", "x", 1, XATTR_REPLACE), " %s", kinds[i]);
		TRY(lsetxattr(kinds[i], "user.", "x", 1, 0), " %s", kinds[i]);
		n = lgetxattr(kinds[i], "user.a", value, sizeof value);
		say("%zd %.3s", n, value);
		say("%zd", lgetxattr(kinds[i], "user.a", NULL, 0));
		say("%s", error((int)lgetxattr(kinds[i], "user.a", value, 2)));
		say("%s", error((int)lgetxattr(kinds[i], "user.none", value, 2)));
		n = llistxattr(kinds[i], list, sizeof list);
		say("list %s",
		    n > 0 && memmem(list, (size_t)n, "user.a", 7) ? "has it" : "has it not");
		TRY(lremovexattr(kinds[i], "user.a"), " %s", kinds[i]);
		TRY(lremovexattr(kinds[i], "user.a"), " %s", kinds[i]);
	}
	memset(value, 'n', sizeof value);
	memcpy(value, "user.", 5);
	for (int len = 254; len <= 257; len++) {
		value[len] = 0;
		TRY(setxattr("file", value, "x", 1, 0), " %d", len);
		value[len] = 'n';
	}
	remove_kinds();
}

static void locks(void)
{
	struct flock l = {.l_type = F_WRLCK, .l_start = 10, .l_len = 10};
	int fd, two;

	put("f", "text");
	fd = open("f", O_RDWR);
	TRY(fcntl(fd, F_SETLK, &l));
	AS(ROOT)
	{
		l.l_start = 0;
		TRY(fcntl(fd, F_SETLK, &l));
		l.l_len = 15;
		TRY(fcntl(fd, F_SETLK, &l));
		TRY(fcntl(fd, F_GETLK, &l));
		say("%d %ld %ld", l.l_type, (long)l.l_start, (long)l.l_len);
	}
	two = open("f", O_RDWR);
	TRY(flock(fd, LOCK_EX | LOCK_NB));
	TRY(flock(two, LOCK_EX | LOCK_NB));
	TRY(flock(two, LOCK_SH | LOCK_NB));
	TRY(flock(fd, LOCK_UN));
	TRY(flock(two, LOCK_EX | LOCK_NB));
	close(fd);
	close(two);
	unlink("f");
}

static void nodes(void)
{
	struct statvfs v;

	TRY(mknod("white", S_IFCHR, 0));
	look("white");
	unlink("white");
	TRY(statvfs(".", &v));
	say("names of %lu", v.f_namemax);
}

static void kinds_opened(void)
{
	each_kind(open_kind);
}
static void kinds_changed(void)
{
	each_kind(change_kind);
}
static void kinds_named(void)
{
	each_kind(name_kind);
}
static void kinds_renamed(void)
{
	each_kind(rename_kind);
}
static void kinds_times(void)
{
	each_kind(times_kind);
}

static const struct {
	const char *name;
	void (*fn)(void);
} parts[] = {
	{"open", kinds_opened},    {"change", kinds_changed}, {"name", kinds_named},
	{"rename", kinds_renamed}, {"times", kinds_times},    {"permissions", permissions},
	{"set-ids", set_ids},      {"masks", masks},          {"names", names},
	{"contents", contents},    {"listing", listing},      {"attributes", attributes},
	{"locks", locks},          {"nodes", nodes},
};

int main(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1]) < 0) {
		fprintf(stderr, "usage: posix DIR [PART]\n");
		return 2;
	}
	umask(0);
	chmod(".", 0755);
	for (unsigned i = 0; i < COUNT(parts); i++) {
		char here[4096];

		if (argc > 2 && strcmp(argv[2], parts[i].name) != 0)
			continue;
		part = parts[i].name;
		if (!getcwd(here, sizeof here) || mkdir(part, 0755) < 0 || chdir(part) < 0)
			return 1;
		parts[i].fn();
		if (chdir(here) < 0)
			return 1;
	}
	printf("all done\n");
	return 0;
}
