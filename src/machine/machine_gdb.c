#include "machine/machine_gdb.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/linear.h"
#include "gdb/gdb.h"
#include "machine/gdb_socket.h"
#include "machine/machine_priv.h"

#define INT3 0xccu

struct patch { /* an INT3 in the guest's code */
	gpa_t gpa;
	uint8_t was;
};

struct machine_gdb {
	struct machine *m;
	struct gdb_target target;
	struct gdb_sink sink;
	struct gdb *client; /* NULL: there is none */

	struct gdb_socket socket;
	struct loop_fd door; /* waited for while there is no client */
	bool door_open;
	struct loop_fd conn; /* fd -1: no client */
	uint32_t events;     /* waited for there */
	uint8_t in[4096];
	uint32_t in_at, in_len;
	uint8_t out[2 * GDB_PUT_MAX];
	uint32_t out_len;

	struct gdb_point point[DEBUG_POINTS_MAX];
	unsigned points, point_cpu;
	struct patch patch[DEBUG_POINTS_MAX];
	unsigned patches;
	uint8_t action[MACHINE_MAX_CPUS + 1];
	/* Watches hit by vCPUs that were not the one that was told of. */
	struct debug_hit later[MACHINE_MAX_CPUS];
	bool has_later[MACHINE_MAX_CPUS];
	bool told_triple_fault;
};

static void pump(struct machine_gdb *g);

static struct machine_gdb *of_target(struct gdb_target *t)
{
	return container_of(t, struct machine_gdb, target);
}

/* --- points, and the engine --- */

static int state_of(struct machine *m, unsigned cpu, struct x86_state *s)
{
	struct err e;

	return m->engine->store(m->cpu[cpu].vcpu, s, &e);
}

static void add(struct engine_debug *d, const struct debug_point *p)
{
	d->point[d->points++] = *p;
}

/* What the engine has slots for goes there: hardware's first, then software breakpoints, and of those
 * the rest becomes INT3s. */
static int distribute(struct machine *m, const struct gdb_point *p, unsigned n,
		      struct engine_debug *d)
{
	unsigned soft = 0;

	*d = (struct engine_debug){0};
	for (unsigned i = 0; i < n; i++) {
		if (!(BIT(p[i].at.kind) & m->engine->debug_kinds))
			return -ENOTSUP;
		if (!p[i].soft)
			add(d, &p[i].at);
	}
	if (d->points > m->engine->debug_points)
		return -ENOSPC;
	for (unsigned i = 0; i < n; i++) {
		struct debug_point at = p[i].at;

		if (!p[i].soft)
			continue;
		if (d->points - soft >= m->engine->debug_points) {
			at.kind = DEBUG_INT3;
			soft++;
		}
		add(d, &at);
	}
	return soft && !(BIT(DEBUG_INT3) & m->engine->debug_kinds) ? -ENOSPC : 0;
}

/* Can all INT3s be put? */
static bool reachable(struct machine *m, unsigned cpu, const struct engine_debug *d)
{
	struct x86_state s;
	struct linear_walk w;

	for (unsigned i = 0; i < d->points; i++) {
		if (d->point[i].kind != DEBUG_INT3)
			continue;
		if (state_of(m, cpu, &s) < 0 || !linear_walk(m->mem, &s, d->point[i].gva, &w) ||
		    !mem_span(m->mem, w.gpa, 1))
			return false;
	}
	return true;
}

/* The engine is asked by doing it, as for a step: then it makes no code anew for it. */
static int points(struct gdb_target *t, unsigned cpu, const struct gdb_point *p, unsigned n)
{
	struct machine_gdb *g = of_target(t);
	struct machine *m = g->m;
	struct engine_debug d;
	struct err e;
	int r = distribute(m, p, n, &d);

	if (r == 0 && !reachable(m, cpu, &d))
		r = -EFAULT;
	d.step = true;
	if (r == 0)
		r = m->engine->set_debug(m->cpu[cpu].vcpu, &d, &e);
	if (r < 0)
		return r;
	memcpy(g->point, p, n * sizeof *p);
	g->points = n;
	g->point_cpu = cpu;
	return 0;
}

static void patch(struct machine_gdb *g, const struct engine_debug *d)
{
	static const uint8_t int3 = INT3;
	struct x86_state s;
	struct linear_walk w;

	if (state_of(g->m, g->point_cpu, &s) < 0)
		return;
	for (unsigned i = 0; i < d->points; i++) {
		struct patch *to = &g->patch[g->patches];

		if (d->point[i].kind != DEBUG_INT3 ||
		    !linear_walk(g->m->mem, &s, d->point[i].gva, &w) ||
		    mem_read(g->m->mem, w.gpa, &to->was, 1) < 0 ||
		    mem_write(g->m->mem, w.gpa, &int3, 1) < 0)
			continue;
		to->gpa = w.gpa;
		g->patches++;
	}
}

void machine_gdb_arm(struct machine *m)
{
	struct machine_gdb *g = m->gdb;
	struct engine_debug d;
	struct err e;

	if (distribute(m, g->point, g->points, &d) < 0)
		d.points = 0;
	patch(g, &d);
	for (unsigned i = 0; i < m->cpus; i++) {
		d.step = g->action[i] == GDB_STEP;
		if (!machine_gdb_holds(m, i) && m->engine->set_debug(m->cpu[i].vcpu, &d, &e) < 0)
			log_warn("debugger: vCPU %u: %s", i, e.text);
	}
}

/* In the reverse order, as two may be at one place. What the guest put there since stays. */
void machine_gdb_disarm(struct machine *m)
{
	struct machine_gdb *g = m->gdb;
	uint8_t now;

	while (g->patches) {
		const struct patch *p = &g->patch[--g->patches];

		if (mem_read(m->mem, p->gpa, &now, 1) == 0 && now == INT3)
			(void)!mem_write(m->mem, p->gpa, &p->was, 1);
	}
}

bool machine_gdb_holds(const struct machine *m, unsigned cpu)
{
	return m->gdb->action[cpu] == GDB_HOLD;
}

/* --- stopping and going on --- */

/* Takes the notes of all vCPUs. Those that hit a watch are told of when they are to go on; the others
 * will run into it again. Returns the first that left one, or -1. */
static int take_notes(struct machine_gdb *g)
{
	int first = -1;

	for (unsigned i = 0; i < g->m->cpus; i++) {
		const struct debug_hit *hit = &g->m->cpu[i].vcpu->hit;

		if (!atomic_exchange(&g->m->cpu[i].debug_stop, false))
			continue;
		g->later[i] = *hit;
		g->has_later[i] = !hit->step && hit->kind != DEBUG_EXEC && hit->kind != DEBUG_INT3;
		if (first < 0)
			first = (int)i;
	}
	return first;
}

static void stop(struct gdb_target *t)
{
	struct machine_gdb *g = of_target(t);

	machine_pause(g->m, MACHINE_PAUSE_DEBUGGER);
	take_notes(g);
}

static void tell(struct machine_gdb *g, unsigned cpu)
{
	struct debug_hit hit = g->later[cpu];

	g->has_later[cpu] = false;
	gdb_stopped(g->client, cpu, GDB_STOP_HIT, &hit);
}

static void resume(struct gdb_target *t, const uint8_t *action)
{
	struct machine_gdb *g = of_target(t);
	struct machine *m = g->m;

	memcpy(g->action, action, m->cpus);
	for (unsigned i = 0; i < m->cpus; i++) {
		if (!g->has_later[i] || machine_gdb_holds(m, i))
			continue;
		if (g->client && gdb_runs(g->client)) {
			tell(g, i);
			return;
		}
		g->has_later[i] = false;
	}
	machine_resume(m, MACHINE_PAUSE_DEBUGGER);
	machine_look(m); /* at what happened before it stopped */
}

void machine_gdb_stopped(struct machine *m)
{
	struct machine_gdb *g = m->gdb;
	int first;

	if (!g->client || !gdb_runs(g->client))
		return; /* stop has taken the note, or will when it goes on */
	machine_pause(m, MACHINE_PAUSE_DEBUGGER);
	first = take_notes(g);
	if (first >= 0)
		tell(g, (unsigned)first);
	else
		machine_resume(m, MACHINE_PAUSE_DEBUGGER);
	pump(g);
}

bool machine_gdb_triple_fault(struct machine *m, unsigned cpu)
{
	struct machine_gdb *g = m->gdb;

	if (!g || !g->client)
		return false;
	if (!gdb_runs(g->client)) /* it is stopped already; else the client has detached */
		return m->paused & MACHINE_PAUSE_DEBUGGER;
	if (g->told_triple_fault)
		return false;
	g->told_triple_fault = true;
	machine_pause(m, MACHINE_PAUSE_DEBUGGER);
	gdb_stopped(g->client, cpu, GDB_STOP_TRIPLE_FAULT, NULL);
	pump(g);
	return true;
}

/* --- the rest that a client can ask for --- */

static int regs(struct gdb_target *t, unsigned cpu, struct x86_state *s)
{
	return state_of(of_target(t)->m, cpu, s);
}

static int set_regs(struct gdb_target *t, unsigned cpu, const struct x86_state *s)
{
	struct machine *m = of_target(t)->m;
	struct err e;

	return m->engine->load_regs(m->cpu[cpu].vcpu, s, &e);
}

static void reset(struct gdb_target *t)
{
	struct machine_gdb *g = of_target(t);

	g->told_triple_fault = false;
	memset(g->has_later, 0, sizeof g->has_later);
	machine_restart(g->m);
}

static void quit(struct gdb_target *t)
{
	machine_stop(of_target(t)->m);
}

static const struct gdb_target_ops ops = {
	.regs = regs,
	.set_regs = set_regs,
	.points = points,
	.stop = stop,
	.resume = resume,
	.reset = reset,
	.quit = quit,
};

/* --- the connection --- */

static void put(struct gdb_sink *s, const void *bytes, uint32_t len)
{
	struct machine_gdb *g = container_of(s, struct machine_gdb, sink);

	if (len > sizeof g->out - g->out_len)
		return; /* cannot be: see pump */
	memcpy(g->out + g->out_len, bytes, len);
	g->out_len += len;
}

static void open_door(struct machine_gdb *g, bool open)
{
	if (open == g->door_open)
		return;
	if (open && loop_add(g->m->loop, &g->door, EPOLLIN, NULL) < 0)
		return;
	if (!open)
		loop_del(g->m->loop, &g->door);
	g->door_open = open;
}

static void drop_client(struct machine_gdb *g)
{
	struct gdb *client = g->client;

	if (g->conn.fd < 0)
		return;
	loop_del(g->m->loop, &g->conn);
	close(g->conn.fd);
	g->conn.fd = -1;
	g->client = NULL;
	gdb_free(client);
	open_door(g, true);
}

static void flush(struct machine_gdb *g)
{
	ssize_t n;

	if (!g->out_len)
		return;
	n = send(g->conn.fd, g->out, g->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n <= 0)
		return; /* what is wrong with it shows when it is read */
	g->out_len -= (uint32_t)n;
	memmove(g->out, g->out + n, g->out_len);
}

/* While half of out is in use, which a client can cause by not reading, its input waits: so there is
 * always room for an answer, and for a stop. */
static void pump(struct machine_gdb *g)
{
	uint32_t events;

	do {
		while (g->in_at < g->in_len && g->out_len <= GDB_PUT_MAX / 2 && !g->m->ended)
			gdb_input(g->client, g->in[g->in_at++]);
		flush(g);
	} while (g->in_at < g->in_len && g->out_len <= GDB_PUT_MAX / 2 && !g->m->ended);
	events = (g->in_at == g->in_len ? EPOLLIN : 0) | (g->out_len ? EPOLLOUT : 0);
	if (events != g->events)
		loop_mod(g->m->loop, &g->conn, events);
	g->events = events;
}

static void conn_ready(struct loop_fd *f, uint32_t events)
{
	struct machine_gdb *g = container_of(f, struct machine_gdb, conn);
	ssize_t n;

	if (g->in_at == g->in_len) {
		n = recv(f->fd, g->in, sizeof g->in, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			drop_client(g);
			return;
		}
		g->in_at = 0;
		g->in_len = n > 0 ? (uint32_t)n : 0;
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		drop_client(g);
		return;
	}
	pump(g);
}

static void client_came(struct loop_fd *f, uint32_t events)
{
	struct machine_gdb *g = container_of(f, struct machine_gdb, door);
	int fd = gdb_socket_accept(&g->socket);
	struct err e;

	if (fd < 0 || g->m->ended) {
		if (fd >= 0)
			close(fd);
		return;
	}
	g->in_at = g->in_len = g->out_len = 0;
	g->events = EPOLLIN;
	g->conn.fd = fd;
	if (loop_add(g->m->loop, &g->conn, EPOLLIN, &e) < 0) {
		log_warn("a debugger connected: %s", e.text);
		close(fd);
		g->conn.fd = -1;
		return;
	}
	if (gdb_new(&g->client, &g->target, &g->sink, &e) < 0) {
		log_warn("a debugger connected: %s", e.text);
		drop_client(g);
		return;
	}
	open_door(g, false);
}

void machine_gdb_ended(struct machine *m, uint8_t status)
{
	if (!m->gdb || !m->gdb->client)
		return;
	gdb_ended(m->gdb->client, status);
	flush(m->gdb);
}

int machine_gdb_new(struct machine *m, const struct machine_config *c, struct err *e)
{
	struct machine_gdb *g;
	int r;

	if (!c->gdb)
		return 0;
	g = m->gdb = calloc(1, sizeof *g);
	if (!g)
		return err_set(e, ENOMEM, "--gdb: out of memory");
	g->m = m;
	g->target = (struct gdb_target){.ops = &ops,
					.mem = m->mem,
					.cpus = m->cpus,
					.i386 = c->gdb_i386,
					.avx = m->cpuid.xcr0_mask & XCR0_AVX};
	g->sink.put = put;
	memset(g->action, GDB_RUN, sizeof g->action);
	g->conn = (struct loop_fd){.fd = -1, .ready = conn_ready};
	r = gdb_socket_open(&g->socket, c->gdb, e);
	if (r < 0)
		return r;
	g->door = (struct loop_fd){.fd = gdb_socket_fd(&g->socket), .ready = client_came};
	r = loop_add(m->loop, &g->door, EPOLLIN, e);
	if (r < 0)
		return r;
	g->door_open = true;
	if (c->gdb_wait) {
		log_info("%s: waits for a debugger at %s", m->name, c->gdb);
		machine_pause(m, MACHINE_PAUSE_DEBUGGER);
	}
	return 0;
}

void machine_gdb_free(struct machine *m)
{
	struct machine_gdb *g = m->gdb;

	if (!g)
		return;
	m->ended = true; /* nothing goes on any more when the client is dropped */
	drop_client(g);
	open_door(g, false);
	gdb_socket_close(&g->socket);
	free(g);
	m->gdb = NULL;
}
