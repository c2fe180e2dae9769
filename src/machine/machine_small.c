/* The small virtio devices that lead to programs and people of the host: ports, console, balloon
 * and sockets; and what the machine can tell of itself. */
#include "machine/machine_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "virtio/balloon.h"
#include "virtio/console.h"
#include "virtio/vsock.h"

static int make_ports(struct virtio_device **out, const struct virtio_env *env, const void *opts,
		      struct err *e)
{
	const struct machine_config *c = opts;
	struct console_port_opts port[CONSOLE_PORTS_MAX];
	struct virtio_console_opts o = {.port = port};

	for (; o.ports < c->ports; o.ports++) {
		const struct machine_port_config *p = &c->port[o.ports];
		int r = console_check_name(p->name, e);

		port[o.ports] = (struct console_port_opts){.name = p->name};
		if (r == 0)
			r = console_socket_new(&port[o.ports].end, env->loop, p->path, e);
		if (r == 0)
			continue;
		while (o.ports-- > 0)
			port[o.ports].end->ops->free(port[o.ports].end);
		return err_wrap(e, "port '%s'", p->name);
	}
	return virtio_console_new(out, env, &o, e);
}

/* --- the console --- */

static void print(void *ctx, const uint8_t *bytes, uint32_t len)
{
	struct machine *m = ctx;

	m->console_out->put(m->console_out, bytes, len);
}

static int make_console(struct virtio_device **out, const struct virtio_env *env, const void *opts,
			struct err *e)
{
	struct machine *m = (struct machine *)opts;
	const struct console_pipe_opts p = {
		.put = print,
		.room = machine_console_has_room,
		.ctx = m,
	};
	struct virtio_console_opts o = {0};
	int r = console_pipe_new(&o.console, env->loop, &p, e);

	if (r == 0)
		r = virtio_console_new(out, env, &o, e);
	if (r == 0)
		m->console_end = o.console;
	return r;
}

void machine_console_size(struct machine *m, unsigned columns, unsigned rows)
{
	if (m->console_end)
		virtio_console_resize(virtio_pci_virtio(m->virtio[SLOT_CONSOLE]), columns, rows);
}

/* --- */

static int make_balloon(struct virtio_device **out, const struct virtio_env *env, const void *opts,
			struct err *e)
{
	const struct machine_config *c = opts;

	return virtio_balloon_new(out, env, c->balloon_bytes, e);
}

static int make_vsock(struct virtio_device **out, const struct virtio_env *env, const void *opts,
		      struct err *e)
{
	const struct machine_config *c = opts;

	return virtio_vsock_new(out, env, c->vsock, c->vsock_cid ? c->vsock_cid : VSOCK_CID_DEFAULT,
				e);
}

int machine_make_small(struct machine *m, const struct machine_config *c, struct err *e)
{
	int r = 0;

	if (c->ports > MACHINE_PORTS_MAX || c->balloon_bytes > c->memory_bytes)
		return err_set(e, EINVAL, "too many ports, or too large a balloon");
	if (c->ports)
		r = machine_add_virtio(m, SLOT_PORTS, THREAD_DEVICES, NULL, make_ports, c, e);
	if (r == 0 && c->console_virtio) {
		m->console_out = c->serial_out ? c->serial_out : &m->serial_null;
		r = machine_add_virtio(m, SLOT_CONSOLE, THREAD_DEVICES, "console", make_console, m,
				       e);
	}
	if (r == 0 && !c->no_balloon)
		r = machine_add_virtio(m, SLOT_BALLOON, THREAD_DEVICES, NULL, make_balloon, c, e);
	if (r == 0 && c->vsock)
		r = machine_add_virtio(m, SLOT_VSOCK, THREAD_DEVICES, NULL, make_vsock, c, e);
	return r;
}

/* --- what there is to tell --- */

struct text {
	char *at;
	uint32_t left;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *t, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(t->at, t->left, fmt, args);
	va_end(args);
	n = n < 0 ? 0 : (int)min_u64((uint64_t)n, t->left ? t->left - 1 : 0);
	t->at += n;
	t->left -= (uint32_t)n;
}

#define IN_MIB(bytes) (double)(bytes) / (double)MIB(1)

static void say_balloon(struct machine *m, struct text *t)
{
	static const struct {
		enum balloon_stat stat;
		const char *name;
		bool even_zero;
	} told[] = {
		{BALLOON_TOTAL, "in all", true},        {BALLOON_FREE, "free", true},
		{BALLOON_AVAILABLE, "available", true}, {BALLOON_CACHES, "in caches", true},
		{BALLOON_SWAP_IN, "swapped in", false}, {BALLOON_SWAP_OUT, "swapped out", false},
	};
	struct balloon_report r;
	bool any = false;

	virtio_balloon_report(virtio_pci_virtio(m->virtio[SLOT_BALLOON]), &r);
	say(t, "balloon: %.1f MiB of %.1f MiB wanted; free pages given back so far: %.1f MiB\n",
	    IN_MIB(r.actual), IN_MIB(r.target), IN_MIB(r.reported));
	for (unsigned i = 0; i < ARRAY_SIZE(told); i++) {
		uint64_t v = r.stat[told[i].stat];

		if (!r.have[told[i].stat] || (!v && !told[i].even_zero))
			continue;
		say(t, "%s%.1f MiB %s", any ? ", " : "guest's memory: ", IN_MIB(v), told[i].name);
		any = true;
	}
	if (any)
		say(t, " (%" PRIu64 " s ago)\n", r.age_ns / 1000000000u);
}

void machine_tell(struct machine *m, char *to, uint32_t len)
{
	struct text t = {to, len};
	uint64_t now_s = clock_now(loop_clock(m->loop)) / 1000000000u;
	struct stat st;

	say(&t, "%s: %u vCPU%s on engine %s, %s for %" PRIu64 " s\n", m->name ? m->name : "machine",
	    m->cpus, m->cpus == 1 ? "" : "s", m->engine->name,
	    machine_paused(m) ? "paused, after it ran" : "running", now_s);
	say(&t, "memory: %.1f MiB", IN_MIB(mem_size(m->mem)));
	if (fstat(mem_fd(m->mem), &st) == 0)
		say(&t, ", of which %.1f MiB are in use on the host",
		    IN_MIB((uint64_t)st.st_blocks * 512));
	say(&t, "\n");
	if (m->virtio[SLOT_BALLOON])
		say_balloon(m, &t);
}
