/* gdb_priv: what the files of a client share: gdb.c (life, stops, who runs), commands.c (packets),
 * monitor.c (the commands that people give by "monitor"). */
#pragma once

#include "cpu/linear.h"
#include "gdb/gdb.h"
#include "gdb/packet.h"
#include "gdb/regs.h"

struct gdb {
	struct gdb_target *t;
	struct gdb_sink *sink;
	struct gdb_regs regs;
	struct gdb_reader in;
	struct gdb_writer out; /* the last reply, for the client to ask again */
	bool no_ack;
	bool told_swbreak, told_hwbreak; /* it knows these stop reasons */
	bool physical;                   /* memory is addressed so */
	bool running;
	bool detached; /* it said so; what comes now is nonsense */
	unsigned cpu;  /* selected for registers and memory */
	int resume;    /* for c and s; -1: all */
	char stop[64]; /* the reply that tells why it is stopped */
	struct gdb_point point[DEBUG_POINTS_MAX];
	unsigned points;
	struct x86_state state; /* of vCPU state_cpu, while stopped */
	int state_cpu;          /* -1: of none */
	uint8_t action[256];    /* by vCPU; the last resume's */
	uint8_t bytes[GDB_PAYLOAD];
};

/* gdb.c */
/* The registers of the selected vCPU; NULL: they cannot be read. */
struct x86_state *gdb_state(struct gdb *g);
int gdb_state_changed(struct gdb *g); /* and are to be put back */
void gdb_forget_state(struct gdb *g);
void gdb_go(struct gdb *g);                     /* as action says */
void gdb_release(struct gdb *g);                /* without points, all run */
bool gdb_take_thread(const char **p, int *cpu); /* -1: all; -2: any */
/* Through page tables, or physical; how many bytes could be. */
uint64_t gdb_peek(struct gdb *g, uint64_t at, void *to, uint64_t len);
uint64_t gdb_poke(struct gdb *g, uint64_t at, const void *from, uint64_t len);

/* commands.c: answers into out; false: there is no answer */
bool gdb_command(struct gdb *g, const char *p, uint32_t len);

/* monitor.c: what it prints goes into the reply */
void gdb_monitor(struct gdb *g, char *line);
