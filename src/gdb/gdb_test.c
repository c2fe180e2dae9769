#include "base/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gdb/gdb_priv.h"

#define CPUS 2

/* A machine that only remembers what it was asked. */
static struct machine {
	struct gdb_target target;
	struct gdb_sink sink;
	struct x86_state state[CPUS];
	struct gdb_point point[DEBUG_POINTS_MAX];
	unsigned points;
	int points_answer;
	uint8_t action[CPUS];
	bool stopped;
	unsigned resumes, resets, quits;
	char out[2 * GDB_PUT_MAX];
	uint32_t out_len;
	struct gdb *g;
} m;

static struct err err;

static int regs(struct gdb_target *t, unsigned cpu, struct x86_state *s)
{
	assert_true(m.stopped && cpu < CPUS);
	*s = m.state[cpu];
	return 0;
}

static int set_regs(struct gdb_target *t, unsigned cpu, const struct x86_state *s)
{
	assert_true(m.stopped && cpu < CPUS);
	m.state[cpu] = *s;
	return 0;
}

static int points(struct gdb_target *t, unsigned cpu, const struct gdb_point *p, unsigned n)
{
	assert_true(n <= DEBUG_POINTS_MAX);
	if (m.points_answer < 0)
		return m.points_answer;
	memcpy(m.point, p, n * sizeof *p);
	m.points = n;
	return 0;
}

static void stop(struct gdb_target *t)
{
	m.stopped = true;
}

static void resume(struct gdb_target *t, const uint8_t *action)
{
	memcpy(m.action, action, CPUS);
	m.stopped = false;
	m.resumes++;
}

static void reset(struct gdb_target *t)
{
	m.resets++;
}

static void quit(struct gdb_target *t)
{
	m.quits++;
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
	assert_true(len < sizeof m.out - m.out_len);
	memcpy(m.out + m.out_len, bytes, len);
	m.out_len += len;
	m.out[m.out_len] = 0;
}

static int begin(bool i386)
{
	memset(&m, 0, sizeof m);
	m.target = (struct gdb_target){.ops = &ops, .cpus = CPUS, .i386 = i386, .avx = true};
	m.sink.put = put;
	if (mem_new(&m.target.mem, MIB(1), &err) < 0)
		return -1;
	for (unsigned n = 0; n < CPUS; n++)
		x86_state_reset(&m.state[n], n);
	return gdb_new(&m.g, &m.target, &m.sink, &err);
}

static int setup(void **state)
{
	return begin(false);
}

static int setup_i386(void **state)
{
	return begin(true);
}

static int teardown(void **state)
{
	gdb_free(m.g);
	mem_free(m.target.mem);
	return 0;
}

static void input(const char *bytes, size_t len)
{
	m.out_len = 0;
	m.out[0] = 0;
	for (size_t i = 0; i < len; i++)
		gdb_input(m.g, (uint8_t)bytes[i]);
}

/* What comes back for a packet: the payload; NULL: nothing but the acknowledgement. */
static const char *ask_bytes(const char *payload, size_t len)
{
	static struct gdb_writer w;
	char *end;

	gdb_begin(&w);
	memcpy(w.frame + 1, payload, len);
	w.len += (uint32_t)len;
	gdb_finish(&w);
	input(w.frame, w.len);
	assert_int_equal(m.out[0], '+');
	if (!m.out[1])
		return NULL;
	assert_int_equal(m.out[1], '$');
	end = strrchr(m.out, '#');
	assert_non_null(end);
	assert_int_equal(strlen(end), 3);
	*end = 0;
	return m.out + 2;
}

static const char *ask(const char *payload)
{
	return ask_bytes(payload, strlen(payload));
}

#define ANSWERS(payload, text) assert_string_equal(ask(payload), text)
#define SILENT(payload)        assert_null(ask(payload))

/* --- framing --- */

static void damaged_packets_are_asked_for_again(void **state)
{
	input("$?#00", 5);
	assert_string_equal(m.out, "-");
	input("$?#3g", 5);
	assert_string_equal(m.out, "-");
	input("$?#3f", 5);
	assert_string_equal(m.out, "+$T05thread:1;#d7");
	input("-", 1);
	assert_string_equal(m.out, "$T05thread:1;#d7");
	input("$garb$?#3f", 10); /* the first was cut off */
	assert_string_equal(m.out, "+$T05thread:1;#d7");
}

static void without_acknowledgements_there_are_none(void **state)
{
	ANSWERS("QStartNoAckMode", "OK");
	input("+$?#3f", 6);
	assert_string_equal(m.out, "$T05thread:1;#d7");
	input("$?#00", 5);
	assert_string_equal(m.out, "");
}

static void a_packet_that_is_too_long_is_refused(void **state)
{
	static char big[2 * GDB_PAYLOAD];

	memset(big, 'a', sizeof big);
	big[0] = '$';
	big[sizeof big - 3] = '#';
	input(big, sizeof big);
	assert_string_equal(m.out, "-");
}

static void what_is_unknown_gets_an_empty_answer(void **state)
{
	ANSWERS("vMustReplyEmpty", "");
	ANSWERS("", "");
	ANSWERS("Qnonsense", "");
}

/* --- registers --- */

static unsigned number_of(const char *name)
{
	for (unsigned n = 0; n < m.g->regs.n; n++)
		if (!strcmp(m.g->regs.reg[n].name, name))
			return n;
	fail_msg("no register %s", name);
	return 0;
}

static const char *reg(const char *name)
{
	char packet[16];

	snprintf(packet, sizeof packet, "p%x", number_of(name));
	return ask(packet);
}

static void set_reg(const char *name, const char *hex)
{
	char packet[64];

	snprintf(packet, sizeof packet, "P%x=%s", number_of(name), hex);
	ANSWERS(packet, "OK");
}

static void registers_are_those_of_the_selected_vcpu(void **state)
{
	m.state[0].gpr[X86_RBX] = 0x1122334455667788;
	m.state[1].gpr[X86_RBX] = 5;
	assert_string_equal(reg("rbx"), "8877665544332211");
	ANSWERS("Hg2", "OK");
	assert_string_equal(reg("rbx"), "0500000000000000");
	set_reg("rbx", "0700000000000000");
	assert_int_equal(m.state[1].gpr[X86_RBX], 7);
	assert_int_equal(m.state[0].gpr[X86_RBX], 0x1122334455667788);
	ANSWERS("Hg3", "E16");
	ANSWERS("pffff", "E16");
	ANSWERS("P0=12", "E16");
}

static void all_registers_go_out_and_come_back(void **state)
{
	static char packet[GDB_PAYLOAD];
	static struct x86_state before;
	uint32_t bytes = 0;

	for (unsigned n = 0; n < 16; n++)
		m.state[0].gpr[n] = 0x0101010101010101 * (n + 1);
	store_le(m.state[0].xsave + 512, 7, 8);
	for (unsigned n = 0; n < 256; n++) {
		m.state[0].xsave[160 + n] = (uint8_t)n;
		m.state[0].xsave[576 + n] = (uint8_t)~n;
	}
	m.state[0].xsave[4] = 0x81;
	before = m.state[0];
	for (unsigned n = 0; n < m.g->regs.n; n++)
		bytes += m.g->regs.reg[n].bytes;
	snprintf(packet, sizeof packet, "G%s", ask("g"));
	assert_int_equal(strlen(packet), 1 + 2 * bytes);
	memset(m.state[0].gpr, 0, sizeof m.state[0].gpr);
	memset(m.state[0].xsave, 0, 1024);
	ANSWERS("Hg1", "OK");
	ANSWERS(packet, "OK");
	assert_memory_equal(m.state[0].gpr, before.gpr, sizeof before.gpr);
	assert_memory_equal(m.state[0].xsave, before.xsave, 1024);
}

static void vectors_that_are_not_in_use_read_as_their_initial_values(void **state)
{
	memset(m.state[0].xsave, 0xaa, 1024);
	store_le(m.state[0].xsave + 512, 0, 8);
	assert_string_equal(reg("fctrl"), "7f030000");
	assert_string_equal(reg("ftag"), "ffff0000");
	assert_string_equal(reg("st0"), "00000000000000000000");
	assert_string_equal(reg("xmm3"), "00000000000000000000000000000000");
	assert_string_equal(reg("ymm3h"), "00000000000000000000000000000000");
	set_reg("st1", "0000000000000080ff3f"); /* 1.0 */
	assert_string_equal(reg("st1"), "0000000000000080ff3f");
	assert_string_equal(reg("st0"), "00000000000000000000");
	assert_string_equal(reg("fctrl"), "7f030000");
	assert_string_equal(reg("xmm3"), "00000000000000000000000000000000");
}

static void tags_of_x87_registers_are_made_from_what_is_in_them(void **state)
{
	uint8_t *x = m.state[0].xsave;

	store_le(x + 512, 1, 8);
	store_le(x + 2, 6 << 11, 2); /* top is 6: ST0 is R6, ST1 R7, ST2 R0 */
	x[4] = 0xc1;                 /* R0, R6, R7 */
	store_le(x + 32, BIT(63), 8);
	store_le(x + 32 + 8, 0x3fff, 2); /* 1.0 */
	store_le(x + 48 + 8, 0x7fff, 2); /* special */
	assert_string_equal(reg("ftag"), "fd8f0000");
	set_reg("ftag", "ff3f0000");
	assert_int_equal(m.state[0].xsave[4], 0x80);
}

static void a_selector_can_be_set_where_it_is_all_there_is(void **state)
{
	set_reg("ds", "34120000");
	assert_int_equal(m.state[0].seg[X86_DS].base, 0x12340);
	m.state[0].cr0 |= CR0_PE;
	ANSWERS("Hg2", "OK");
	ANSWERS("Hg1", "OK");
	set_reg("ds", "10000000");
	assert_int_equal(m.state[0].seg[X86_DS].sel, 0x1234);
	set_reg("cr8", "0f00000000000000");
	assert_int_equal(m.state[0].cr8, 0);
	set_reg("eflags", "ffffffff");
	assert_int_equal(m.state[0].rflags & RFLAGS_VM, 0);
}

static const char *read_description(unsigned piece)
{
	static char all[GDB_TARGET_BYTES];
	char packet[64];
	uint32_t len = 0;

	for (const char *more = "m"; *more == 'm';) {
		snprintf(packet, sizeof packet, "qXfer:features:read:target.xml:%x,%x", len, piece);
		more = ask(packet);
		assert_true(*more == 'm' || *more == 'l');
		len += gdb_unescape(all + len, more + 1, (uint32_t)strlen(more + 1));
	}
	all[len] = 0;
	return all;
}

static void the_description_comes_in_pieces(void **state)
{
	assert_string_equal(read_description(100), m.g->regs.xml);
	assert_string_equal(read_description(0xffffff), m.g->regs.xml);
	assert_non_null(strstr(m.g->regs.xml, "</target>"));
	assert_non_null(strstr(m.g->regs.xml, ">i386:x86-64<"));
	ANSWERS("qXfer:features:read:target.xml:ffffffffffffffff,10", "l");
	ANSWERS("qXfer:features:read:other.xml:0,10", "E16");
}

static void a_guest_without_64_bit_mode_has_its_own_registers(void **state)
{
	m.state[0].gpr[X86_RCX] = 0x1ffffffff;
	assert_string_equal(ask("p1"), "ffffffff"); /* i386: eax, ecx */
	assert_non_null(strstr(m.g->regs.xml, ">i386<"));
	assert_null(strstr(m.g->regs.xml, "xmm8"));
}

/* --- memory --- */

static void memory_is_read_and_written(void **state)
{
	uint8_t *ram = mem_span(m.target.mem, 0, MIB(1));

	memcpy(ram + 0xffe, "\x12\x34\x56\x78", 4);
	ANSWERS("mffe,4", "12345678");
	ANSWERS("M1000,2:abCD", "OK");
	assert_memory_equal(ram + 0xffe, "\x12\x34\xab\xcd", 4);
	assert_string_equal(ask_bytes("X1001,4:\x00}\x03}]\x80", 14), "OK");
	assert_memory_equal(ram + 0x1001, "\x00#}\x80", 4);
	ANSWERS("X1000,0:", "OK");
}

static void what_is_not_there_is_an_error_or_a_part(void **state)
{
	ANSWERS("mffffe,4", "0000");
	ANSWERS("m100000,4", "E0e");
	ANSWERS("Mffffe,4:01020304", "E0e");
	ANSWERS("mffffffffffffffff,ffffffffffffffff", "E0e");
	ANSWERS("m10000000000000000,1", "E16");
	ANSWERS("m12", "E16");
	ANSWERS("M0,4:0102", "E16");
	ANSWERS("M0,ffffffff:00", "E16");
	ANSWERS("X0,4:ab", "E16");
	assert_int_equal(strlen(ask("m0,fffff")), GDB_PAYLOAD);
}

static void memory_can_be_physical(void **state)
{
	m.state[0].cr0 |= CR0_PE | CR0_PG; /* no page is mapped */
	ANSWERS("m0,1", "E0e");
	ANSWERS("qqemu.PhyMemMode", "0");
	ANSWERS("Qqemu.PhyMemMode:1", "OK");
	ANSWERS("m0,1", "00");
	ANSWERS("m100000,1", "E0e");
	ANSWERS("qqemu.PhyMemMode", "1");
	ANSWERS("Qqemu.PhyMemMode:2", "E16");
}

/* --- points and stops --- */

static void hit(unsigned cpu, struct debug_hit what)
{
	m.stopped = true;
	m.out_len = 0;
	gdb_stopped(m.g, cpu, GDB_STOP_HIT, &what);
	*strrchr(m.out, '#') = 0;
}

static void points_are_kept_and_told_of(void **state)
{
	assert_non_null(strstr(ask("qSupported:swbreak+;hwbreak+"), "PacketSize=4000;"));
	ANSWERS("Z0,1000,1", "OK");
	ANSWERS("Z1,2000,1", "OK");
	ANSWERS("Z1,2000,1", "OK");
	ANSWERS("Z2,3000,4", "OK");
	assert_int_equal(m.points, 3);
	assert_true(m.point[0].soft);
	assert_int_equal(m.point[2].at.kind, DEBUG_WRITE);
	assert_int_equal(m.point[2].at.len, 4);
	SILENT("c");
	hit(1, (struct debug_hit){.kind = DEBUG_EXEC, .gva = 0x1000});
	assert_string_equal(m.out, "$T05thread:2;swbreak:;");
	ANSWERS("?", "T05thread:2;swbreak:;");
	ANSWERS("qC", "QC2");
	SILENT("c");
	hit(0, (struct debug_hit){.kind = DEBUG_EXEC, .gva = 0x2000});
	assert_string_equal(m.out, "$T05thread:1;hwbreak:;");
	SILENT("c");
	hit(0, (struct debug_hit){.kind = DEBUG_WRITE, .gva = 0x3000});
	assert_string_equal(m.out, "$T05thread:1;watch:3000;");
	ANSWERS("z1,2000,1", "OK");
	ANSWERS("z1,2000,1", "OK");
	assert_int_equal(m.points, 2);
	SILENT("c");
	hit(0, (struct debug_hit){.step = true});
	assert_string_equal(m.out, "$T05thread:1;");
}

static void points_that_cannot_be_are_refused(void **state)
{
	char packet[32];

	ANSWERS("Z5,1000,1", "E16");
	ANSWERS("Z0,1000", "E16");
	ANSWERS("Z2,1000,100000000", "E16");
	m.points_answer = -ENOTSUP;
	ANSWERS("Z3,1000,1", "");
	m.points_answer = -ENOSPC;
	ANSWERS("Z1,1000,1", "E1c");
	m.points_answer = 0;
	assert_int_equal(m.points, 0);
	for (unsigned n = 0; n < DEBUG_POINTS_MAX; n++) {
		snprintf(packet, sizeof packet, "Z0,%x,1", n);
		ANSWERS(packet, "OK");
	}
	ANSWERS("Z0,1000,1", "E1c");
}

static void each_vcpu_does_what_it_is_told(void **state)
{
	ANSWERS("vCont?", "vCont;c;C;s;S");
	SILENT("vCont;s:2;c");
	assert_int_equal(m.action[0], GDB_RUN);
	assert_int_equal(m.action[1], GDB_STEP);
	hit(1, (struct debug_hit){.step = true});
	SILENT("vCont;s:2");
	assert_int_equal(m.action[0], GDB_HOLD);
	assert_int_equal(m.action[1], GDB_STEP);
	hit(1, (struct debug_hit){.step = true});
	SILENT("vCont;C05:-1");
	assert_int_equal(m.action[0], GDB_RUN);
	hit(0, (struct debug_hit){.step = true});
	SILENT("s");
	assert_int_equal(m.action[0], GDB_STEP);
	assert_int_equal(m.action[1], GDB_HOLD);
	hit(0, (struct debug_hit){.step = true});
	ANSWERS("Hc2", "OK");
	SILENT("S05;1234");
	assert_int_equal(m.action[1], GDB_STEP);
	assert_int_equal(m.state[0].rip, 0x1234);
	hit(1, (struct debug_hit){.step = true});
	ANSWERS("vCont", "E16");
	ANSWERS("vCont;x", "E16");
	ANSWERS("vCont;c:9", "E16");
	ANSWERS("vCont;c:1,", "E16");
	ANSWERS("vCont;C", "E16");
	assert_int_equal(m.resumes, 5);
}

static void an_interrupt_stops_what_runs(void **state)
{
	input("\x03", 1);
	assert_string_equal(m.out, "");
	SILENT("c");
	assert_false(m.stopped);
	assert_true(gdb_runs(m.g));
	SILENT("g"); /* there is nothing to see while it runs */
	input("\x03", 1);
	assert_true(m.stopped);
	assert_string_equal(m.out, "$T02thread:1;#d4");
	assert_false(gdb_runs(m.g));
}

static void a_triple_fault_and_the_end_are_told(void **state)
{
	SILENT("c");
	m.stopped = true;
	m.out_len = 0;
	gdb_stopped(m.g, 1, GDB_STOP_TRIPLE_FAULT, NULL);
	assert_memory_equal(m.out, "$T0bthread:2;#", 14);
	SILENT("c");
	m.out_len = 0;
	gdb_ended(m.g, 3);
	assert_memory_equal(m.out, "$W03#", 5);
	SILENT("g");
}

/* --- threads --- */

static void vcpus_are_threads(void **state)
{
	ANSWERS("qfThreadInfo", "m1,2");
	ANSWERS("qsThreadInfo", "l");
	ANSWERS("T2", "OK");
	ANSWERS("T3", "E03");
	ANSWERS("Tffffffffffffffff", "E03");
	ANSWERS("Hg-1", "OK");
	ANSWERS("Hx1", "E16");
	ANSWERS("H", "E16");
	assert_memory_equal(ask("qThreadExtraInfo,2"), "76435055", 8); /* vCPU */
	ANSWERS("qThreadExtraInfo,7", "E03");
	ANSWERS("qC", "QC1");
}

/* --- the end --- */

static void a_client_that_detaches_leaves_nothing_behind(void **state)
{
	ANSWERS("Z0,1000,1", "OK");
	ANSWERS("D", "OK");
	assert_int_equal(m.points, 0);
	assert_false(m.stopped);
	assert_int_equal(m.action[1], GDB_RUN);
	SILENT("g");
	assert_int_equal(m.resumes, 1);
}

static void nor_does_one_that_is_lost(void **state)
{
	ANSWERS("Z0,1000,1", "OK");
	SILENT("vCont;c:1");
	gdb_free(m.g);
	m.g = NULL;
	assert_int_equal(m.points, 0);
	assert_false(m.stopped);
	assert_int_equal(m.action[1], GDB_RUN);
}

static void the_machine_can_be_ended_and_started_again(void **state)
{
	ANSWERS("!", "OK");
	ANSWERS("vRun;", "T05thread:1;");
	SILENT("R00");
	assert_int_equal(m.resets, 2);
	ANSWERS("vAttach;1", "T05thread:1;");
	ANSWERS("qAttached", "1");
	ANSWERS("vKill;1", "OK");
	SILENT("k");
	assert_int_equal(m.quits, 2);
}

/* --- monitor --- */

static const char *monitor(const char *line)
{
	static char packet[1024], text[GDB_PAYLOAD + 1];
	const char *p;
	uint32_t len;

	strcpy(packet, "qRcmd,");
	for (const char *c = line; *c; c++)
		sprintf(packet + strlen(packet), "%02x", (uint8_t)*c);
	p = ask(packet);
	len = (uint32_t)strlen(p) / 2;
	memset(text, 0, sizeof text);
	assert_true(gdb_take_bytes(&p, text, len));
	return text;
}

static void people_have_commands_too(void **state)
{
	assert_non_null(strstr(monitor("help"), "monitor walk"));
	assert_non_null(strstr(monitor("regs"), "rip 000000000000fff0"));
	assert_non_null(strstr(monitor("walk 0x1234"), "1234 is at physical 1234\n"));
	assert_non_null(strstr(monitor("walk 100000"), "which is no RAM"));
	assert_non_null(strstr(monitor("walk x"), "in hexadecimal"));
	assert_non_null(strstr(monitor("phys on"), "physical"));
	assert_true(m.g->physical);
	assert_non_null(strstr(monitor("phys off"), "linear"));
	assert_non_null(strstr(monitor("dance"), "monitor help"));
	assert_non_null(strstr(monitor("reset"), "at its start"));
	assert_int_equal(m.resets, 1);
	ANSWERS("qRcmd,71756974", "OK");
	assert_int_equal(m.quits, 1);
	ANSWERS("qRcmd,zz", "E16");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(damaged_packets_are_asked_for_again),
		T(without_acknowledgements_there_are_none),
		T(a_packet_that_is_too_long_is_refused),
		T(what_is_unknown_gets_an_empty_answer),
		T(registers_are_those_of_the_selected_vcpu),
		T(all_registers_go_out_and_come_back),
		T(vectors_that_are_not_in_use_read_as_their_initial_values),
		T(tags_of_x87_registers_are_made_from_what_is_in_them),
		T(a_selector_can_be_set_where_it_is_all_there_is),
		T(the_description_comes_in_pieces),
		cmocka_unit_test_setup_teardown(a_guest_without_64_bit_mode_has_its_own_registers,
						setup_i386, teardown),
		T(memory_is_read_and_written),
		T(what_is_not_there_is_an_error_or_a_part),
		T(memory_can_be_physical),
		T(points_are_kept_and_told_of),
		T(points_that_cannot_be_are_refused),
		T(each_vcpu_does_what_it_is_told),
		T(an_interrupt_stops_what_runs),
		T(a_triple_fault_and_the_end_are_told),
		T(vcpus_are_threads),
		T(a_client_that_detaches_leaves_nothing_behind),
		T(nor_does_one_that_is_lost),
		T(the_machine_can_be_ended_and_started_again),
		T(people_have_commands_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
