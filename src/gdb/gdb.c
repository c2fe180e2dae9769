#include "gdb/gdb_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIG_INT  2
#define SIG_TRAP 5
#define SIG_SEGV 11

/* --- what commands need --- */

struct x86_state *gdb_state(struct gdb *g)
{
	if (g->state_cpu == (int)g->cpu)
		return &g->state;
	g->state_cpu = -1;
	if (g->t->ops->regs(g->t, g->cpu, &g->state) < 0)
		return NULL;
	g->state_cpu = (int)g->cpu;
	return &g->state;
}

/* Read again then, as the engine has the last word on what they are. */
int gdb_state_changed(struct gdb *g)
{
	g->state_cpu = -1;
	return g->t->ops->set_regs(g->t, g->cpu, &g->state);
}

void gdb_forget_state(struct gdb *g)
{
	g->state_cpu = -1;
}

/* "p1.2" of clients that know several processes is none of ours. */
bool gdb_take_thread(const char **p, int *cpu)
{
	uint64_t v;

	if (gdb_take(p, "-1")) {
		*cpu = -1;
		return true;
	}
	if (!gdb_take_hex(p, &v))
		return false;
	*cpu = v == 0 ? -2 : v > INT32_MAX ? INT32_MAX : (int)v - 1;
	return true;
}

static uint64_t physical(struct gdb *g, uint64_t at, void *to, const void *from, uint64_t len)
{
	uint64_t done = 0, n;

	for (; done < len; done += n) {
		n = min_u64(4096 - ((at + done) & 0xfff), len - done);
		if (to ? mem_read(g->t->mem, at + done, (uint8_t *)to + done, n) < 0
		       : mem_write(g->t->mem, at + done, (const uint8_t *)from + done, n) < 0)
			break;
	}
	return done;
}

uint64_t gdb_peek(struct gdb *g, uint64_t at, void *to, uint64_t len)
{
	const struct x86_state *s = gdb_state(g);

	if (g->physical)
		return physical(g, at, to, NULL, len);
	return s ? linear_read(g->t->mem, s, at, to, len) : 0;
}

uint64_t gdb_poke(struct gdb *g, uint64_t at, const void *from, uint64_t len)
{
	const struct x86_state *s = gdb_state(g);

	if (g->physical)
		return physical(g, at, NULL, from, len);
	return s ? linear_write(g->t->mem, s, at, from, len) : 0;
}

/* --- running --- */

void gdb_go(struct gdb *g)
{
	gdb_forget_state(g);
	g->running = true;
	g->t->ops->resume(g->t, g->action);
}

void gdb_release(struct gdb *g)
{
	g->points = 0;
	if (g->running)
		g->t->ops->stop(g->t);
	(void)!g->t->ops->points(g->t, 0, g->point, 0);
	memset(g->action, GDB_RUN, sizeof g->action);
	gdb_forget_state(g);
	g->running = false;
	g->t->ops->resume(g->t, g->action);
}

static void send(struct gdb *g)
{
	gdb_finish(&g->out);
	g->sink->put(g->sink, g->out.frame, g->out.len);
}

static bool is_soft(const struct gdb *g, uint64_t gva)
{
	for (unsigned n = 0; n < g->points; n++)
		if (g->point[n].soft && g->point[n].at.gva == gva)
			return true;
	return false;
}

static void put_reason(struct gdb *g, char *to, size_t len, const struct debug_hit *hit)
{
	static const char *const watch[DEBUG_KINDS] = {
		[DEBUG_WRITE] = "watch", [DEBUG_READ] = "rwatch", [DEBUG_ACCESS] = "awatch"};

	*to = 0;
	if (hit->step)
		return;
	if (hit->kind < DEBUG_KINDS && watch[hit->kind])
		snprintf(to, len, "%s:%llx;", watch[hit->kind], (unsigned long long)hit->gva);
	else if (is_soft(g, hit->gva) ? g->told_swbreak : g->told_hwbreak)
		snprintf(to, len, "%s:;", is_soft(g, hit->gva) ? "swbreak" : "hwbreak");
}

static void tell_stop(struct gdb *g, unsigned cpu, int signal, const struct debug_hit *hit)
{
	char reason[32] = "";

	if (hit)
		put_reason(g, reason, sizeof reason, hit);
	g->running = false;
	g->cpu = cpu;
	gdb_forget_state(g);
	snprintf(g->stop, sizeof g->stop, "T%02xthread:%x;%s", (unsigned)signal, cpu + 1, reason);
	gdb_begin(&g->out);
	gdb_put(&g->out, g->stop);
	send(g);
}

void gdb_stopped(struct gdb *g, unsigned cpu, enum gdb_stop why, const struct debug_hit *hit)
{
	if (g->running && cpu < g->t->cpus)
		tell_stop(g, cpu, why == GDB_STOP_TRIPLE_FAULT ? SIG_SEGV : SIG_TRAP,
			  why == GDB_STOP_HIT ? hit : NULL);
}

bool gdb_runs(const struct gdb *g)
{
	return g->running;
}

void gdb_ended(struct gdb *g, uint8_t status)
{
	if (!g->running)
		return;
	g->running = false;
	g->detached = true;
	gdb_begin(&g->out);
	gdb_putf(&g->out, "W%02x", status);
	send(g);
}

/* --- bytes --- */

static void acknowledge(struct gdb *g, char how)
{
	if (!g->no_ack)
		g->sink->put(g->sink, &how, 1);
}

static void interrupt(struct gdb *g)
{
	if (!g->running)
		return;
	g->t->ops->stop(g->t);
	tell_stop(g, g->cpu, SIG_INT, NULL);
}

static void packet(struct gdb *g)
{
	acknowledge(g, '+');
	gdb_begin(&g->out);
	/* While the machine runs there is nothing that it could be asked. */
	if (g->running || g->detached)
		return;
	if (gdb_command(g, g->in.payload, g->in.len))
		send(g);
}

void gdb_input(struct gdb *g, uint8_t byte)
{
	switch (gdb_read(&g->in, byte)) {
	case GDB_NOTHING: break;
	case GDB_PACKET: packet(g); break;
	case GDB_INTERRUPT: interrupt(g); break;
	case GDB_AGAIN:
		if (!g->no_ack && g->out.len > 1)
			g->sink->put(g->sink, g->out.frame, g->out.len);
		break;
	case GDB_DAMAGED: acknowledge(g, '-'); break;
	}
}

int gdb_new(struct gdb **out, struct gdb_target *t, struct gdb_sink *sink, struct err *e)
{
	struct gdb *g =
		aligned_alloc(_Alignof(struct gdb), align_up(sizeof *g, _Alignof(struct gdb)));

	if (!g)
		return err_set(e, ENOMEM, "no memory for a debugger");
	memset(g, 0, sizeof *g);
	g->t = t;
	g->sink = sink;
	g->state_cpu = -1;
	g->resume = -1;
	snprintf(g->stop, sizeof g->stop, "T%02xthread:1;", SIG_TRAP);
	gdb_regs_init(&g->regs, t->i386, t->avx);
	t->ops->stop(t);
	*out = g;
	return 0;
}

void gdb_free(struct gdb *g)
{
	if (!g)
		return;
	if (!g->detached)
		gdb_release(g);
	free(g);
}
