/* commands: the packets, each by the letters that it begins with. Unknown ones are answered by an empty
 * packet, as the protocol has it; what cannot be done by "E" and an errno. */
#include "gdb/gdb_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool ok(struct gdb *g)
{
	gdb_put(&g->out, "OK");
	return true;
}

static bool fail(struct gdb *g, int code)
{
	gdb_begin(&g->out);
	gdb_putf(&g->out, "E%02x", (unsigned)(code < 0 ? -code : code) & 0xff);
	return true;
}

static bool tell_why(struct gdb *g, const char *p, uint32_t len)
{
	gdb_put(&g->out, g->stop);
	return true;
}

/* --- registers --- */

static bool read_all(struct gdb *g, const char *p, uint32_t len)
{
	const struct x86_state *s = gdb_state(g);
	uint8_t v[GDB_REG_BYTES];

	if (!s)
		return fail(g, EIO);
	for (unsigned n = 0; n < g->regs.n; n++) {
		gdb_reg_get(&g->regs.reg[n], s, v);
		gdb_put_hex(&g->out, v, g->regs.reg[n].bytes);
	}
	return true;
}

static bool put_back(struct gdb *g)
{
	int r = gdb_state_changed(g);

	return r < 0 ? fail(g, r) : ok(g);
}

/* Of a packet that is too short, the registers that it has. */
static bool write_all(struct gdb *g, const char *p, uint32_t len)
{
	struct x86_state *s = gdb_state(g);
	uint8_t v[GDB_REG_BYTES];

	if (!s)
		return fail(g, EIO);
	for (unsigned n = 0; n < g->regs.n; n++) {
		memset(v, 0, sizeof v);
		if (!gdb_take_bytes(&p, v, g->regs.reg[n].bytes))
			break;
		gdb_reg_set(&g->regs.reg[n], s, v);
	}
	return put_back(g);
}

static bool read_one(struct gdb *g, const char *p, uint32_t len)
{
	const struct x86_state *s = gdb_state(g);
	uint8_t v[GDB_REG_BYTES];
	uint64_t n;

	if (!s || !gdb_take_hex(&p, &n) || n >= g->regs.n)
		return fail(g, EINVAL);
	gdb_reg_get(&g->regs.reg[n], s, v);
	gdb_put_hex(&g->out, v, g->regs.reg[n].bytes);
	return true;
}

static bool write_one(struct gdb *g, const char *p, uint32_t len)
{
	struct x86_state *s = gdb_state(g);
	uint8_t v[GDB_REG_BYTES] = {0};
	uint64_t n;

	if (!s || !gdb_take_hex(&p, &n) || n >= g->regs.n || !gdb_take(&p, "=") ||
	    !gdb_take_bytes(&p, v, g->regs.reg[n].bytes))
		return fail(g, EINVAL);
	gdb_reg_set(&g->regs.reg[n], s, v);
	return put_back(g);
}

/* --- memory --- */

static bool take_range(const char **p, uint64_t *at, uint64_t *len)
{
	return gdb_take_hex(p, at) && gdb_take(p, ",") && gdb_take_hex(p, len);
}

static bool read_memory(struct gdb *g, const char *p, uint32_t len)
{
	uint64_t at, n;

	if (!take_range(&p, &at, &n))
		return fail(g, EINVAL);
	n = min_u64(n, GDB_PAYLOAD / 2);
	n = gdb_peek(g, at, g->bytes, n);
	if (!n)
		return fail(g, EFAULT);
	gdb_put_hex(&g->out, g->bytes, (uint32_t)n);
	return true;
}

static bool write_bytes(struct gdb *g, uint64_t at, uint64_t n)
{
	return gdb_poke(g, at, g->bytes, n) == n ? ok(g) : fail(g, EFAULT);
}

static bool write_memory(struct gdb *g, const char *p, uint32_t len)
{
	uint64_t at, n;

	if (!take_range(&p, &at, &n) || !gdb_take(&p, ":") || n > GDB_PAYLOAD ||
	    !gdb_take_bytes(&p, g->bytes, (uint32_t)n))
		return fail(g, EINVAL);
	return write_bytes(g, at, n);
}

static bool write_binary(struct gdb *g, const char *p, uint32_t len)
{
	const char *begin = p;
	uint64_t at, n;

	if (!take_range(&p, &at, &n) || !gdb_take(&p, ":"))
		return fail(g, EINVAL);
	len = gdb_unescape((char *)g->bytes, p, len - (uint32_t)(p - begin));
	return len == n ? write_bytes(g, at, n) : fail(g, EINVAL);
}

/* --- points --- */

static bool take_point(const char **p, struct gdb_point *to)
{
	static const enum debug_kind kinds[] = {DEBUG_EXEC, DEBUG_EXEC, DEBUG_WRITE, DEBUG_READ,
						DEBUG_ACCESS};
	uint64_t at, len;
	int type = **p - '0';

	if (type < 0 || type >= (int)ARRAY_SIZE(kinds))
		return false;
	++*p;
	if (!gdb_take(p, ",") || !take_range(p, &at, &len) || len > 4096)
		return false;
	*to = (struct gdb_point){
		{at, kinds[type] == DEBUG_EXEC || !len ? 1 : (uint32_t)len, kinds[type]},
		type == 0};
	return true;
}

static bool same_point(const struct gdb_point *a, const struct gdb_point *b)
{
	return a->at.gva == b->at.gva && a->at.len == b->at.len && a->at.kind == b->at.kind &&
	       a->soft == b->soft;
}

static unsigned find_point(const struct gdb *g, const struct gdb_point *p)
{
	unsigned n = 0;

	while (n < g->points && !same_point(&g->point[n], p))
		n++;
	return n;
}

static bool insert_point(struct gdb *g, const char *p, uint32_t len)
{
	struct gdb_point new;
	int r;

	if (!take_point(&p, &new))
		return fail(g, EINVAL);
	if (find_point(g, &new) < g->points)
		return ok(g);
	if (g->points == DEBUG_POINTS_MAX)
		return fail(g, ENOSPC);
	g->point[g->points] = new;
	r = g->t->ops->points(g->t, g->cpu, g->point, g->points + 1);
	if (r == -ENOTSUP)
		return true; /* empty: a kind that is not offered */
	if (r < 0)
		return fail(g, r);
	g->points++;
	return ok(g);
}

static bool remove_point(struct gdb *g, const char *p, uint32_t len)
{
	struct gdb_point old;
	unsigned n;

	if (!take_point(&p, &old))
		return fail(g, EINVAL);
	n = find_point(g, &old);
	if (n < g->points) {
		g->points--;
		memmove(&g->point[n], &g->point[n + 1], (g->points - n) * sizeof g->point[0]);
		(void)!g->t->ops->points(g->t, g->cpu, g->point, g->points);
	}
	return ok(g);
}

/* --- going on --- */

static bool jump_to(struct gdb *g, const char *p)
{
	struct x86_state *s;
	uint64_t at;

	if (!gdb_take_hex(&p, &at))
		return true;
	s = gdb_state(g);
	if (!s)
		return false;
	s->rip = at;
	return gdb_state_changed(g) == 0;
}

static bool go_all_or_one(struct gdb *g, enum gdb_action what)
{
	unsigned one = g->resume >= 0 ? (unsigned)g->resume : g->cpu;

	memset(g->action, what == GDB_RUN ? GDB_RUN : GDB_HOLD, sizeof g->action);
	if (what == GDB_STEP)
		g->action[one % g->t->cpus] = GDB_STEP;
	gdb_go(g);
	return false;
}

static bool cont(struct gdb *g, const char *p, uint32_t len)
{
	return jump_to(g, p) ? go_all_or_one(g, GDB_RUN) : fail(g, EIO);
}

static bool step(struct gdb *g, const char *p, uint32_t len)
{
	return jump_to(g, p) ? go_all_or_one(g, GDB_STEP) : fail(g, EIO);
}

/* With a signal, which machines do not have. */
static bool cont_signal(struct gdb *g, const char *p, uint32_t len)
{
	const char *address = strchr(p, ';');

	return cont(g, address ? address + 1 : "", 0);
}

static bool step_signal(struct gdb *g, const char *p, uint32_t len)
{
	const char *address = strchr(p, ';');

	return step(g, address ? address + 1 : "", 0);
}

/* One "action[:thread]": for those that no action before it was for. */
static bool take_action(struct gdb *g, const char **p, bool *taken)
{
	enum gdb_action what;
	uint64_t signal;
	int cpu = -1;
	char c = **p;

	if (c != 'c' && c != 'C' && c != 's' && c != 'S')
		return false;
	what = c == 'c' || c == 'C' ? GDB_RUN : GDB_STEP;
	++*p;
	if ((c == 'C' || c == 'S') && !gdb_take_hex(p, &signal))
		return false;
	if (gdb_take(p, ":") && !gdb_take_thread(p, &cpu))
		return false;
	if (cpu == -2)
		cpu = (int)g->cpu;
	for (unsigned n = 0; n < g->t->cpus; n++) {
		if (taken[n] || (cpu >= 0 && (unsigned)cpu != n))
			continue;
		g->action[n] = (uint8_t)what;
		taken[n] = true;
	}
	return true;
}

static bool v_cont(struct gdb *g, const char *p, uint32_t len)
{
	bool taken[256] = {false}, any = false;

	if (gdb_take(&p, "?")) {
		gdb_put(&g->out, "vCont;c;C;s;S");
		return true;
	}
	memset(g->action, GDB_HOLD, sizeof g->action);
	while (gdb_take(&p, ";"))
		if (!take_action(g, &p, taken))
			return fail(g, EINVAL);
	for (unsigned n = 0; n < g->t->cpus; n++)
		any |= taken[n];
	if (*p || !any)
		return fail(g, EINVAL);
	gdb_go(g);
	return false;
}

/* --- the end, and the start --- */

static bool kill_(struct gdb *g, const char *p, uint32_t len)
{
	g->t->ops->quit(g->t);
	return false;
}

static bool v_kill(struct gdb *g, const char *p, uint32_t len)
{
	g->t->ops->quit(g->t);
	return ok(g);
}

static bool detach(struct gdb *g, const char *p, uint32_t len)
{
	gdb_release(g);
	g->detached = true;
	return ok(g);
}

static bool restart(struct gdb *g, const char *p, uint32_t len)
{
	gdb_forget_state(g);
	g->t->ops->reset(g->t);
	return false;
}

static bool v_run(struct gdb *g, const char *p, uint32_t len)
{
	restart(g, p, len);
	return tell_why(g, p, len);
}

static bool extended(struct gdb *g, const char *p, uint32_t len)
{
	return ok(g);
}

/* --- threads --- */

static bool select_thread(struct gdb *g, const char *p, uint32_t len)
{
	char what = *p;
	int cpu;

	if (what != 'g' && what != 'c')
		return fail(g, EINVAL);
	p++;
	if (!gdb_take_thread(&p, &cpu) || cpu >= (int)g->t->cpus)
		return fail(g, EINVAL);
	if (what == 'g' && cpu >= 0)
		g->cpu = (unsigned)cpu;
	if (what == 'c')
		g->resume = cpu >= 0 ? cpu : -1;
	return ok(g);
}

static bool thread_lives(struct gdb *g, const char *p, uint32_t len)
{
	int cpu;

	if (!gdb_take_thread(&p, &cpu) || cpu < 0 || cpu >= (int)g->t->cpus)
		return fail(g, ESRCH);
	return ok(g);
}

static bool current_thread(struct gdb *g, const char *p, uint32_t len)
{
	gdb_putf(&g->out, "QC%x", g->cpu + 1);
	return true;
}

static bool list_threads(struct gdb *g, const char *p, uint32_t len)
{
	for (unsigned n = 0; n < g->t->cpus; n++)
		gdb_putf(&g->out, "%c%x", n ? ',' : 'm', n + 1);
	return true;
}

static bool no_more_threads(struct gdb *g, const char *p, uint32_t len)
{
	gdb_put(&g->out, "l");
	return true;
}

static const char *mode_of(const struct x86_state *s)
{
	if (!(s->cr0 & CR0_PE))
		return "real mode";
	if (s->rflags & RFLAGS_VM)
		return "virtual-8086 mode";
	if ((s->efer & EFER_LMA) && (s->seg[X86_CS].attr & SEG_L))
		return "64-bit";
	return s->seg[X86_CS].attr & SEG_DB ? "32-bit" : "16-bit";
}

static bool describe_thread(struct gdb *g, const char *p, uint32_t len)
{
	static const char *const doing[] = {"running", "halted", "waits to be started",
					    "waits to be started"};
	unsigned before = g->cpu;
	const struct x86_state *s;
	char text[96];
	int cpu;

	if (!gdb_take_thread(&p, &cpu) || cpu < 0 || cpu >= (int)g->t->cpus)
		return fail(g, ESRCH);
	g->cpu = (unsigned)cpu;
	s = gdb_state(g);
	g->cpu = before;
	if (!s)
		return fail(g, EIO);
	snprintf(text, sizeof text, "vCPU %d: %s, %s, ring %u", cpu, doing[s->mp_state & 3],
		 mode_of(s), s->seg[X86_SS].attr >> SEG_DPL_SHIFT & 3);
	gdb_put_hex(&g->out, text, (uint32_t)strlen(text));
	return true;
}

/* --- what both can --- */

static bool supported(struct gdb *g, const char *p, uint32_t len)
{
	g->told_swbreak = strstr(p, "swbreak+");
	g->told_hwbreak = strstr(p, "hwbreak+");
	gdb_putf(&g->out,
		 "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;"
		 "hwbreak+",
		 GDB_PAYLOAD);
	return true;
}

static bool no_ack_mode(struct gdb *g, const char *p, uint32_t len)
{
	g->no_ack = true;
	return ok(g);
}

static bool features(struct gdb *g, const char *p, uint32_t len)
{
	uint64_t all = strlen(g->regs.xml), at, n;

	if (!gdb_take(&p, "target.xml:") || !take_range(&p, &at, &n))
		return fail(g, EINVAL);
	at = min_u64(at, all);
	n = min_u64(n, (GDB_PAYLOAD - 1) / 2); /* all of it may need an escape */
	n = min_u64(n, all - at);
	gdb_put(&g->out, at + n == all ? "l" : "m");
	gdb_put_binary(&g->out, g->regs.xml + at, (uint32_t)n);
	return true;
}

static bool attached(struct gdb *g, const char *p, uint32_t len)
{
	gdb_put(&g->out, "1"); /* then a client that leaves detaches, and does not kill */
	return true;
}

static bool symbols(struct gdb *g, const char *p, uint32_t len)
{
	return ok(g); /* there are none that we want to know */
}

/* As in QEMU, so that what people have for it works here. */
static bool ask_physical(struct gdb *g, const char *p, uint32_t len)
{
	gdb_put(&g->out, g->physical ? "1" : "0");
	return true;
}

static bool set_physical(struct gdb *g, const char *p, uint32_t len)
{
	if (*p != '0' && *p != '1')
		return fail(g, EINVAL);
	g->physical = *p == '1';
	return ok(g);
}

static bool monitor(struct gdb *g, const char *p, uint32_t len)
{
	char line[256] = "";
	uint32_t n = (uint32_t)strlen(p) / 2;

	if (n >= sizeof line || !gdb_take_bytes(&p, line, n))
		return fail(g, EINVAL);
	gdb_monitor(g, line);
	if (g->out.len == 1)
		return ok(g);
	return true;
}

static const struct {
	const char *name;
	bool (*run)(struct gdb *g, const char *p, uint32_t len); /* with what follows the name */
	bool whole;                                              /* nothing may follow */
} commands[] = {
	{"?", tell_why, true},
	{"g", read_all, true},
	{"G", write_all},
	{"p", read_one},
	{"P", write_one},
	{"m", read_memory},
	{"M", write_memory},
	{"X", write_binary},
	{"Z", insert_point},
	{"z", remove_point},
	{"c", cont},
	{"C", cont_signal},
	{"s", step},
	{"S", step_signal},
	{"vCont", v_cont},
	{"vKill;", v_kill},
	{"vAttach;", tell_why},
	{"vRun;", v_run},
	{"vRun", v_run, true},
	{"k", kill_},
	{"D", detach},
	{"R", restart},
	{"r", restart},
	{"!", extended, true},
	{"H", select_thread},
	{"T", thread_lives},
	{"qC", current_thread, true},
	{"qfThreadInfo", list_threads, true},
	{"qsThreadInfo", no_more_threads, true},
	{"qThreadExtraInfo,", describe_thread},
	{"qSupported", supported},
	{"QStartNoAckMode", no_ack_mode, true},
	{"qXfer:features:read:", features},
	{"qAttached", attached},
	{"qSymbol::", symbols},
	{"qqemu.PhyMemMode", ask_physical, true},
	{"Qqemu.PhyMemMode:", set_physical},
	{"qRcmd,", monitor},
};

bool gdb_command(struct gdb *g, const char *p, uint32_t len)
{
	for (unsigned n = 0; n < ARRAY_SIZE(commands); n++) {
		const char *rest = p;

		if (gdb_take(&rest, commands[n].name) && !(commands[n].whole && *rest))
			return commands[n].run(g, rest, len - (uint32_t)(rest - p));
	}
	return true;
}
