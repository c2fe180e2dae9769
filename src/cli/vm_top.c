/* holon top: what each VM does, between two looks at its figures, and how the host stands. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/print.h"
#include "cli/vm.h"

#define SEEN_MAX   256u
#define LOW_MEMORY 5.0  /* percent of it that is available */
#define CROWDED    40.0 /* percent of the time in which somebody waited for a processor */
#define THRASHING  10.0 /* the same for memory, or disks */

struct figures {
	uint64_t cpu_ns, disk_read, disk_write, rx, tx;
};

struct row {
	char name[VM_NAME_MAX + 1], state[16];
	bool has_figures;
	uint64_t memory, used, resident;
	struct figures f;
};

struct look {
	struct timespec at;
	uint64_t host_busy, host_all; /* jiffies */
	struct row row[SEEN_MAX];
	unsigned rows;
};

static uint64_t number(const json_t *j, const char *member)
{
	json_int_t n = json_integer_value(json_object_get(j, member));

	return n > 0 ? (uint64_t)n : 0;
}

static uint64_t sum(const json_t *list, const char *member)
{
	uint64_t n = 0;
	json_t *one;
	size_t i;

	json_array_foreach(list, i, one) n += number(one, member);
	return n;
}

static void take_figures(struct row *r, const json_t *j)
{
	const json_t *disks = json_object_get(j, "disks"), *nets = json_object_get(j, "nets");

	r->has_figures = true;
	r->memory = number(j, "memory_bytes");
	r->used = number(j, "memory_used_bytes");
	r->resident = number(j, "resident_bytes");
	r->f = (struct figures){number(j, "process_ns"), sum(disks, "read_bytes"),
				sum(disks, "write_bytes"), sum(nets, "rx_bytes"),
				sum(nets, "tx_bytes")};
}

static void look_at_vm(void *ctx, const struct vm_seen *v)
{
	struct look *l = ctx;
	struct row *r = &l->row[l->rows];
	struct err err;
	json_t *j;

	if (l->rows == SEEN_MAX || v->life != VM_RUNS)
		return;
	l->rows++;
	*r = (struct row){0};
	strcpy(r->name, v->dir.name);
	snprintf(r->state, sizeof r->state, "%s", vm_state_word(v));
	if (vm_ask(v->dir.name, METHOD_STATS, NULL, &j, &err) == 0) {
		take_figures(r, j);
		json_decref(j);
	}
}

/* --- the host --- */

static void look_at_host(struct look *l)
{
	AUTO_FCLOSE FILE *f = fopen("/proc/stat", "re");
	unsigned long long v[8] = {0};

	if (!f || fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3,
			 v + 4, v + 5, v + 6, v + 7) != 8)
		return;
	l->host_all = 0;
	for (unsigned i = 0; i < 8; i++)
		l->host_all += v[i];
	l->host_busy = l->host_all - v[3] - v[4];
}

static uint64_t meminfo(const char *what)
{
	AUTO_FCLOSE FILE *f = fopen("/proc/meminfo", "re");
	size_t len = strlen(what);
	char line[128];

	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, what, len) && line[len] == ':')
			return strtoull(line + len + 1, NULL, 10) * 1024;
	return 0;
}

/* Percent of the last ten seconds in which something waited; 0 where the kernel does not say. */
static double pressure(const char *of)
{
	char path[64];
	double avg = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/pressure/%s", of);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "some avg10=%lf", &avg) != 1)
		avg = 0;
	fclose(f);
	return avg;
}

static void print_host(const struct look *then, const struct look *now)
{
	uint64_t all = now->host_all - then->host_all, total = meminfo("MemTotal");
	uint64_t available = meminfo("MemAvailable");
	double cpu = all ? 100.0 * (double)(now->host_busy - then->host_busy) / (double)all : 0;
	double share = total ? 100.0 * (double)available / (double)total : 100;
	double psi[] = {pressure("cpu"), pressure("memory"), pressure("io")};
	char a[SIZE_TEXT_LEN], t[SIZE_TEXT_LEN];

	printf("host: %ld CPUs %.0f%% busy, %s of %s memory available; waiting for cpu %.0f%%, "
	       "memory %.0f%%, io %.0f%%",
	       sysconf(_SC_NPROCESSORS_ONLN), cpu, size_text(a, available), size_text(t, total),
	       psi[0], psi[1], psi[2]);
	if (share < LOW_MEMORY)
		printf("  OVERLOADED: memory");
	else if (psi[1] > THRASHING)
		printf("  OVERLOADED: memory is moved to and fro");
	else if (psi[0] > CROWDED)
		printf("  OVERLOADED: processors");
	else if (psi[2] > THRASHING * 4)
		printf("  OVERLOADED: disks");
	putchar('\n');
}

/* --- */

static const struct row *same(const struct look *l, const struct row *r)
{
	for (unsigned i = 0; i < l->rows; i++)
		if (!strcmp(l->row[i].name, r->name) && l->row[i].has_figures)
			return &l->row[i];
	return NULL;
}

static char *rate(char to[SIZE_TEXT_LEN + 4], uint64_t then, uint64_t now, double seconds)
{
	char text[SIZE_TEXT_LEN];

	size_text(text, now > then ? (uint64_t)((double)(now - then) / seconds) : 0);
	snprintf(to, SIZE_TEXT_LEN + 4, "%s/s", text);
	return to;
}

static void print_row(const struct row *was, const struct row *r, double s)
{
	char t[6][SIZE_TEXT_LEN + 4];
	const struct figures *a = was ? &was->f : &r->f, *b = &r->f;

	if (!r->has_figures) {
		printf("%-20s %-9s %s\n", r->name, r->state, "no answer");
		return;
	}
	printf("%-20s %-9s %5.1f%% %9s %9s %11s %11s %11s %11s\n", r->name, r->state,
	       100.0 * (double)(b->cpu_ns - a->cpu_ns) / 1e9 / s, size_text(t[0], r->memory),
	       size_text(t[1], r->used), rate(t[2], a->disk_read, b->disk_read, s),
	       rate(t[3], a->disk_write, b->disk_write, s), rate(t[4], a->rx, b->rx, s),
	       rate(t[5], a->tx, b->tx, s));
}

static int look(struct look *l, struct err *e)
{
	l->rows = 0;
	clock_gettime(CLOCK_MONOTONIC, &l->at);
	look_at_host(l);
	return vm_list(look_at_vm, l, e);
}

static void print_all(const struct look *then, const struct look *now)
{
	double s = (double)(now->at.tv_sec - then->at.tv_sec) +
		   (double)(now->at.tv_nsec - then->at.tv_nsec) / 1e9;

	print_host(then, now);
	printf("%-20s %-9s %6s %9s %9s %11s %11s %11s %11s\n", "NAME", "STATE", "CPU", "MEMORY",
	       "USED", "DISK READ", "DISK WRITE", "NET IN", "NET OUT");
	for (unsigned i = 0; i < now->rows; i++)
		print_row(same(then, &now->row[i]), &now->row[i], s > 0 ? s : 1);
	if (!now->rows)
		puts("No VM runs.");
}

int cmd_top(const void *opts, int words, char **word)
{
	const struct top_opts *o = opts;
	bool live = !o->once && isatty(STDOUT_FILENO);
	AUTO_FREE struct look *l = calloc(2, sizeof *l);
	struct err err = {0};
	int r = l ? look(&l[0], &err) : err_set(&err, ENOMEM, "out of memory");

	for (unsigned i = 1; r == 0; i++) {
		sleep(1);
		if ((r = look(&l[i % 2], &err)) < 0)
			break;
		if (live)
			fputs("\033[H\033[J", stdout);
		print_all(&l[(i - 1) % 2], &l[i % 2]);
		fflush(stdout);
		if (!live)
			break;
	}
	return r < 0 ? vm_trouble("top", &err) : EXIT_DONE;
}
