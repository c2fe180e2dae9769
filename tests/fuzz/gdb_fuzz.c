/* A client of the GDB protocol that means harm. The first byte says whether bytes come as they are or
 * as payloads, one a line, that get their frame here; 0xff stops the machine as a vCPU would, 0xfe ends
 * a connection and begins another. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "gdb/gdb.h"
#include "gdb/packet.h"

#define CPUS 3

struct machine {
	struct gdb_target target;
	struct gdb_sink sink;
	struct x86_state state[CPUS];
	bool stopped;
	uint64_t put;
};

static struct machine *of(struct gdb_target *t)
{
	return container_of(t, struct machine, target);
}

static int regs(struct gdb_target *t, unsigned cpu, struct x86_state *s)
{
	assert(of(t)->stopped && cpu < CPUS);
	*s = of(t)->state[cpu];
	return 0;
}

static int set_regs(struct gdb_target *t, unsigned cpu, const struct x86_state *s)
{
	assert(of(t)->stopped && cpu < CPUS);
	of(t)->state[cpu] = *s;
	return 0;
}

static int points(struct gdb_target *t, unsigned cpu, const struct gdb_point *p, unsigned n)
{
	assert(of(t)->stopped && cpu < CPUS && n <= DEBUG_POINTS_MAX);
	for (unsigned i = 0; i < n; i++)
		assert(p[i].at.len && p[i].at.kind < DEBUG_INT3);
	return n && p[n - 1].at.gva == 13 ? -1 : 0;
}

static void stop(struct gdb_target *t)
{
	of(t)->stopped = true;
}

static void resume(struct gdb_target *t, const uint8_t *action)
{
	assert(of(t)->stopped);
	for (unsigned i = 0; i < CPUS; i++)
		assert(action[i] <= GDB_STEP);
	of(t)->stopped = false;
}

static void reset(struct gdb_target *t)
{
	assert(of(t)->stopped);
}

static void quit(struct gdb_target *t)
{
	assert(of(t)->stopped);
}

static const struct gdb_target_ops ops = {.regs = regs,
					  .set_regs = set_regs,
					  .points = points,
					  .stop = stop,
					  .resume = resume,
					  .reset = reset,
					  .quit = quit};

static void put(struct gdb_sink *s, const void *bytes, uint32_t len)
{
	container_of(s, struct machine, sink)->put += len;
}

static void byte(struct machine *m, struct gdb *g, uint8_t b)
{
	m->put = 0;
	gdb_input(g, b);
	assert(m->put <= GDB_PUT_MAX);
}

static void framed(struct machine *m, struct gdb *g, const uint8_t *data, size_t len)
{
	static struct gdb_writer w;

	gdb_begin(&w);
	if (len > GDB_PAYLOAD)
		len = GDB_PAYLOAD;
	memcpy(w.frame + 1, data, len);
	w.len += (uint32_t)len;
	gdb_finish(&w);
	for (uint32_t i = 0; i < w.len; i++)
		byte(m, g, (uint8_t)w.frame[i]);
}

static void stops_by_itself(struct machine *m, struct gdb *g, uint8_t how)
{
	struct debug_hit hit = {.step = how & 1, .kind = how % DEBUG_KINDS, .gva = how};

	if (!gdb_runs(g))
		return;
	m->stopped = true;
	m->put = 0;
	gdb_stopped(g, how % CPUS, how & 0x80 ? GDB_STOP_TRIPLE_FAULT : GDB_STOP_HIT, &hit);
	assert(m->put <= GDB_PUT_MAX);
}

static const uint8_t *line(struct machine *m, struct gdb **g, bool frames, const uint8_t *data,
			   const uint8_t *end)
{
	const uint8_t *next = memchr(data, '\n', (size_t)(end - data));
	struct err e;

	next = next ? next : end;
	if (*data == 0xff) {
		stops_by_itself(m, *g, data + 1 < next ? data[1] : 0);
	} else if (*data == 0xfe) {
		gdb_free(*g);
		assert(!m->stopped);
		if (gdb_new(g, &m->target, &m->sink, &e) < 0)
			abort();
	} else if (frames) {
		framed(m, *g, data, (size_t)(next - data));
	} else {
		for (; data < next; data++)
			byte(m, *g, *data);
	}
	return next < end ? next + 1 : end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct machine m;
	const uint8_t *end = data + len;
	struct gdb *g = NULL;
	struct err e;
	bool frames;

	if (!len)
		return 0;
	frames = *data++ & 1;
	memset(&m, 0, sizeof m);
	m.target = (struct gdb_target){.ops = &ops, .cpus = CPUS, .i386 = len & 1, .avx = true};
	m.sink.put = put;
	for (unsigned n = 0; n < CPUS; n++)
		x86_state_reset(&m.state[n], n);
	if (mem_new(&m.target.mem, MIB(1), &e) < 0 || gdb_new(&g, &m.target, &m.sink, &e) < 0)
		abort();
	while (data < end)
		data = line(&m, &g, frames, data, end);
	gdb_free(g);
	mem_free(m.target.mem);
	return 0;
}
