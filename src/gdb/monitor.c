/* monitor: what people type after "monitor" in GDB. */
#include "gdb/gdb_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The reply is the text in hex. */
__attribute__((format(printf, 2, 3))) static void say(struct gdb *g, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	gdb_put_hex(&g->out, text, (uint32_t)strlen(text));
}

static void regs(struct gdb *g, const char *arg)
{
	const struct x86_state *s = gdb_state(g);
	char text[4096];

	if (!s) {
		say(g, "the registers cannot be read\n");
		return;
	}
	x86_state_print(s, text, sizeof text);
	say(g, "%s", text);
}

static void say_entry(struct gdb *g, const struct linear_walk *w, unsigned n)
{
	static const char *const bits[] = {"P", "W", "U", "PWT", "PCD", "A", "D", "PS", "G"};
	uint64_t e = w->step[n].entry;

	say(g, "  %012llx: %016llx ", (unsigned long long)w->step[n].at, (unsigned long long)e);
	for (unsigned b = 0; b < ARRAY_SIZE(bits); b++)
		if (e >> b & 1)
			say(g, " %s", bits[b]);
	say(g, "%s\n", e >> 63 ? " NX" : "");
}

static void walk(struct gdb *g, const char *arg)
{
	const struct x86_state *s = gdb_state(g);
	struct linear_walk w;
	uint64_t gva;
	bool found;

	gdb_take(&arg, "0x");
	if (!s || !gdb_take_hex(&arg, &gva) || *arg) {
		say(g, "monitor walk ADDRESS: a linear address in hexadecimal\n");
		return;
	}
	found = linear_walk(g->t->mem, s, gva, &w);
	for (unsigned n = 0; n < w.levels; n++)
		say_entry(g, &w, n);
	if (found)
		say(g, "%llx is at physical %llx%s\n", (unsigned long long)gva,
		    (unsigned long long)w.gpa,
		    mem_span(g->t->mem, w.gpa, 1) ? "" : ", which is no RAM");
	else
		say(g, "%llx is not mapped\n", (unsigned long long)gva);
}

static void phys(struct gdb *g, const char *arg)
{
	if (!strcmp(arg, "on") || !strcmp(arg, "off"))
		g->physical = arg[1] == 'n';
	say(g, "addresses of memory are %s\n", g->physical ? "physical" : "linear");
}

static void reset(struct gdb *g, const char *arg)
{
	gdb_forget_state(g);
	g->t->ops->reset(g->t);
	say(g,
	    "the machine is at its start; GDB has old registers until \"maint flush register-cache\"\n");
}

static void quit(struct gdb *g, const char *arg)
{
	g->t->ops->quit(g->t);
}

static void help(struct gdb *g, const char *arg);

static const struct {
	const char *name, *args, *text;
	void (*run)(struct gdb *g, const char *arg);
} commands[] = {
	{"help", "", "this list", help},
	{"regs", "", "all registers of the thread's vCPU", regs},
	{"walk", " ADDRESS", "the page table entries that translate it, and where it leads", walk},
	{"phys", " on|off", "whether addresses of memory are physical", phys},
	{"reset", "", "start the machine again, and stop at its start", reset},
	{"quit", "", "end the machine", quit},
};

static void help(struct gdb *g, const char *arg)
{
	for (unsigned n = 0; n < ARRAY_SIZE(commands); n++)
		say(g, "monitor %s%s: %s\n", commands[n].name, commands[n].args, commands[n].text);
}

void gdb_monitor(struct gdb *g, char *line)
{
	char *arg = strchr(line, ' ');

	if (arg) {
		*arg++ = 0;
		arg += strspn(arg, " ");
	}
	for (unsigned n = 0; n < ARRAY_SIZE(commands); n++) {
		if (!strcmp(line, commands[n].name)) {
			commands[n].run(g, arg ? arg : "");
			return;
		}
	}
	say(g, "no such command; \"monitor help\" lists them\n");
}
