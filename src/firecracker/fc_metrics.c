/* The file of metrics: a line of JSON each minute, and when a client asks for one; counts are since
 * the line before, as Firecracker has them. */
#include "firecracker/fc_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"

#define INTERVAL_S 60

/* A file is written at its end. A named pipe may have no reader yet: it is opened so that nobody
 * waits for one. */
int fc_open_output(const char *path, struct err *e)
{
	int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0644);

	return fd >= 0 ? fd : err_set(e, errno, "'%s' cannot be opened: %s", path, strerror(errno));
}

static json_int_t since(uint64_t now, uint64_t before)
{
	return (json_int_t)(now >= before ? now - before : now);
}

static void add(json_t *sum, const json_t *one)
{
	const char *name;
	json_t *v;

	json_object_foreach((json_t *)one, name, v)
		json_object_set_new(sum, name,
				    json_integer(json_integer_value(json_object_get(sum, name)) +
						 json_integer_value(v)));
}

/* Under its own name, and in the sum over all. */
static void put_device(json_t *line, const char *kind, const char *id, json_t *counts)
{
	char name[100];
	json_t *sum = json_object_get(line, kind);

	if (!sum) {
		json_object_set_new(line, kind, json_object());
		sum = json_object_get(line, kind);
	}
	add(sum, counts);
	snprintf(name, sizeof name, "%s_%.64s", kind, id);
	json_object_set_new(line, name, counts);
}

static void put_disks(const struct fc *f, json_t *line, const struct machine_stats *s)
{
	const struct machine_stats *b = &f->metrics.before;
	json_t *one;
	size_t i;

	json_array_foreach(f->doc[FC_DRIVES], i, one)
	{
		const char *id = json_string_value(json_object_get(one, "drive_id"));
		int n = fc_disk_number(f, id);
		const struct machine_disk_stats *d = &s->disk[n], *old = &b->disk[n];

		put_device(line, "block", id,
			   json_pack("{s:I, s:I, s:I, s:I}", "read_bytes",
				     since(d->read_bytes, old->read_bytes), "write_bytes",
				     since(d->write_bytes, old->write_bytes), "read_count",
				     since(d->reads, old->reads), "write_count",
				     since(d->writes, old->writes)));
	}
}

static void put_nets(const struct fc *f, json_t *line, const struct machine_stats *s)
{
	json_t *one;
	size_t i;

	json_array_foreach(f->doc[FC_NETS], i, one)
	{
		const struct machine_net_stats *n = &s->net[i], *b = &f->metrics.before.net[i];

		put_device(line, "net", json_string_value(json_object_get(one, "iface_id")),
			   json_pack("{s:I, s:I, s:I, s:I}", "rx_bytes_count",
				     since(n->rx_bytes, b->rx_bytes), "rx_packets_count",
				     since(n->rx_frames, b->rx_frames), "tx_bytes_count",
				     since(n->tx_bytes, b->tx_bytes), "tx_packets_count",
				     since(n->tx_frames, b->tx_frames)));
	}
}

static json_t *make_line(struct fc *f, const struct machine_stats *s, const struct mmds_counts *m)
{
	const struct mmds_counts *b = &f->metrics.mmds_before;
	struct timespec t;
	json_t *line;

	clock_gettime(CLOCK_REALTIME, &t);
	line = json_pack("{s:I}", "utc_timestamp_ms",
			 (json_int_t)t.tv_sec * 1000 + t.tv_nsec / 1000000);
	if (f->metrics.emit_id)
		json_object_set_new(line, "id", json_string(f->id));
	if (f->metrics.properties)
		json_object_set(line, "properties", f->metrics.properties);
	pthread_mutex_lock(&f->doc_lock);
	put_disks(f, line, s);
	put_nets(f, line, s);
	pthread_mutex_unlock(&f->doc_lock);
	json_object_set_new(line, "mmds",
			    json_pack("{s:I, s:I, s:I, s:I}", "rx_count",
				      since(m->requests, b->requests), "rx_no_token",
				      since(m->no_token, b->no_token), "rx_invalid_token",
				      since(m->bad_token, b->bad_token), "rx_accepted_err",
				      since(m->refused, b->refused)));
	return line;
}

int fc_metrics_write(struct fc *f, struct machine *m, struct err *e)
{
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *with_end = NULL;
	struct mmds_counts counts;
	struct machine_stats s;
	json_t *line;
	int n;

	if (f->metrics.fd < 0)
		return err_set(e, EINVAL, "Failed to flush metrics: there is no file for them.");
	machine_get_stats(m, &s);
	mmds_get_counts(f->mmds, &counts);
	line = make_line(f, &s, &counts);
	text = json_dumps(line, JSON_COMPACT);
	json_decref(line);
	n = text ? asprintf(&with_end, "%s\n", text) : -1;
	if (n < 0)
		return err_set(e, ENOMEM, "out of memory");
	if (write(f->metrics.fd, with_end, (size_t)n) != n)
		return err_set(e, EIO,
			       "Failed to write metrics: nobody reads the pipe, or the disk is "
			       "full.");
	f->metrics.before = s;
	f->metrics.mmds_before = counts;
	return 0;
}

/* --- each minute --- */

static void tick(struct loop_fd *w, uint32_t events)
{
	struct fc_metrics *metrics = container_of(w, struct fc_metrics, tick);
	struct fc *f = container_of(metrics, struct fc, metrics);
	uint64_t count;
	struct err err;

	if (read(w->fd, &count, sizeof count) == sizeof count &&
	    fc_metrics_write(f, metrics->machine, &err) < 0)
		log_debug("%s: %s", f->id, err.text);
}

int fc_metrics_tick(struct fc *f, struct machine *m, struct err *e)
{
	const struct itimerspec interval = {{INTERVAL_S, 0}, {INTERVAL_S, 0}};
	struct fc_metrics *t = &f->metrics;

	if (t->fd < 0)
		return 0;
	t->machine = m;
	t->tick =
		(struct loop_fd){timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), tick};
	if (t->tick.fd < 0 || timerfd_settime(t->tick.fd, 0, &interval, NULL) < 0)
		return err_sys(e, errno, "timer");
	return loop_add(machine_loop(m), &t->tick, EPOLLIN, e);
}

void fc_metrics_stop(struct fc *f)
{
	if (f->metrics.tick.fd >= 0)
		close(f->metrics.tick.fd);
	f->metrics.tick.fd = -1;
}

void fc_metrics_done(struct fc *f)
{
	fc_metrics_stop(f);
	if (f->metrics.fd >= 0)
		close(f->metrics.fd);
	json_decref(f->metrics.properties);
}
