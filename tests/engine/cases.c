/* cases: runs the tables of cases_table.c on an engine, each case in each of its modes. */
#include "cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "longmode.h"

#define FLAT_GDT 0x1000u
#define PD32     0xb0000u
#define PDPT_PAE 0xb1000u
#define PD_PAE   0xb2000u /* four tables */

static const char *const mode_name[] = {"64-bit", "32-bit", "32-bit paged", "32-bit PAE", "16-bit"};

static void put_code(struct vm *vm, const struct engine_case *c)
{
	static const uint8_t end[] = {0xe6, VM_STOP_PORT, 0xf4, 0xeb, 0xfd};
	uint8_t *at = vm_ram(vm, CASE_CODE, 4096), *data = vm_ram(vm, CASE_DATA, 4096);

	memset(at, 0xcc, 4096);
	memcpy(at, c->code, c->len);
	memcpy(at + c->len, end, sizeof end);
	for (unsigned i = 0; i < 4096; i++)
		data[i] = (uint8_t)i;
}

/* Identity: RAM and the recorded MMIO page. */
static void make_tables(struct longmode *lm)
{
	uint32_t *pd32 = vm_ram(lm->vm, PD32, 4096);
	uint64_t *pdpt = vm_ram(lm->vm, PDPT_PAE, 4096);

	longmode_map(lm, VM_RECORD_MMIO, VM_RECORD_MMIO, PTE_P | PTE_W);
	for (uint64_t at = CASE_CODE; at < CASE_STACK; at += 4096)
		longmode_map(lm, at, at, PTE_P | PTE_W);
	for (uint32_t i = 0; i < 1024; i++)
		pd32[i] = i << 22 | PTE_P | PTE_W | PTE_PS;
	for (uint64_t i = 0; i < 4; i++) {
		uint64_t *pd = vm_ram(lm->vm, PD_PAE + 4096 * i, 4096);

		pdpt[i] = (PD_PAE + 4096 * i) | PTE_P;
		for (uint64_t n = 0; n < 512; n++)
			pd[n] = i << 30 | n << 21 | PTE_P | PTE_W | PTE_PS;
	}
}

static void protected_mode(struct x86_state *s, bool code16)
{
	struct x86_seg data = {0, 0xffffffff, LM_SS0, 0xc93};

	s->efer = 0;
	s->cr0 = CR0_PE | CR0_ET | CR0_NE;
	s->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
	s->cr3 = 0;
	s->idtr = (struct x86_dtr){0, 0};
	s->gdtr.base = LM_GDT;
	s->seg[X86_CS] = (struct x86_seg){0, 0xffffffff, 0x18, 0xc9b};
	for (unsigned i = 0; i < X86_SREGS; i++)
		if (i != X86_CS)
			s->seg[i] = data;
	s->tr = (struct x86_seg){LM_TSS, 0x67, LM_TR, 0x8b};
	if (code16) {
		s->seg[X86_CS] = (struct x86_seg){CASE_CODE, 0xffff, 0x18, 0x09b};
		s->seg[X86_SS] = (struct x86_seg){CASE_DATA, 0xffff, LM_SS0, 0x093};
	}
}

static void start_state(const struct longmode *lm, const struct engine_case *c, enum case_mode mode,
			struct x86_state *s)
{
	*s = lm->base;
	s->rip = CASE_CODE;
	if (mode != CASE_LONG)
		protected_mode(s, mode == CASE_16);
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = 0;
	for (unsigned i = 0; i < c->ins; i++)
		s->gpr[c->in[i].n] = c->in[i].value;
	s->gpr[X86_RSP] = CASE_STACK - 16;
	s->rflags = RFLAGS_FIXED | c->flags_in;
	switch (mode) {
	case CASE_PAGED:
		s->cr0 |= CR0_PG;
		s->cr4 |= CR4_PSE;
		s->cr3 = PD32;
		break;
	case CASE_PAE:
		s->cr0 |= CR0_PG;
		s->cr4 |= CR4_PAE;
		s->cr3 = PDPT_PAE;
		break;
	case CASE_16:
		s->rip = 0;
		s->gpr[X86_RSP] = 0x1000;
		break;
	default: break;
	}
}

static bool log_agrees(const struct vm *vm, const struct engine_case *c)
{
	if (vm->logged != c->logs)
		return false;
	for (unsigned i = 0; i < c->logs; i++) {
		const struct vm_access *a = &vm->log[i], *b = &c->log[i];

		if (a->space != b->space || a->write != b->write || a->size != b->size ||
		    a->addr != b->addr || a->value != b->value)
			return false;
	}
	return true;
}

static void print_log(const char *what, const struct vm_access *log, unsigned n)
{
	printf("\t%s:", what);
	for (unsigned i = 0; i < n && i < VM_LOG_MAX; i++)
		printf(" %s%s %#lx size %u value %#lx;", log[i].space == BUS_PIO ? "port" : "mmio",
		       log[i].write ? " write" : " read", log[i].addr, log[i].size, log[i].value);
	printf("\n");
}

static bool judge(const struct vm *vm, const struct engine_case *c, enum case_mode mode,
		  enum vm_end how, const struct x86_state *stop, const struct err *e)
{
	bool ok = how == VM_STOPPED, log_ok = log_agrees(vm, c);

	if (!ok)
		printf("FAIL %s, %s: ended otherwise (%d) %s at rip %#lx\n", c->name,
		       mode_name[mode], how, e->text, stop->rip);
	for (unsigned i = 0; ok && i < c->outs; i++) {
		uint64_t got = stop->gpr[c->out[i].n];

		if (got == c->out[i].value)
			continue;
		printf("FAIL %s, %s: register %u: got %#lx, want %#lx\n", c->name, mode_name[mode],
		       c->out[i].n, got, c->out[i].value);
		ok = false;
	}
	if (ok && (stop->rflags & c->flags_mask) != c->flags_out) {
		printf("FAIL %s, %s: flags %#lx, want %#x\n", c->name, mode_name[mode],
		       stop->rflags & c->flags_mask, c->flags_out);
		ok = false;
	}
	if (!log_ok) {
		printf("FAIL %s, %s: bus traffic\n", c->name, mode_name[mode]);
		print_log("got", vm->log, vm->logged);
		print_log("want", c->log, c->logs);
	}
	return ok && log_ok;
}

static bool run_case(const struct engine *engine, const struct engine_case *c, enum case_mode mode)
{
	struct vm *vm = calloc(1, sizeof *vm);
	static struct x86_state start, stop;
	struct longmode lm;
	struct err e = {0};
	enum vm_end how = VM_FAILED;
	bool ok;

	if (!vm)
		return false;
	if (vm_init(vm, engine, MIB(8), &e) == 0) {
		longmode_init(&lm, vm);
		make_tables(&lm);
		put_code(vm, c);
		start_state(&lm, c, mode, &start);
		how = vm_run(vm, &start, &stop, 5, &e);
	}
	ok = judge(vm, c, mode, how, &stop, &e);
	vm_done(vm);
	free(vm);
	return ok;
}

/* Hosts that emulate ring 0 may have no paging outside long mode: the first instruction ends in a
 * triple fault. */
static bool has_paging32(const struct engine *engine)
{
	static const struct engine_case nothing = {"nothing", BIT(CASE_PAGED), "\x90", 1};
	static struct x86_state start, stop;
	struct vm *vm = calloc(1, sizeof *vm);
	struct longmode lm;
	struct err e = {0};
	bool has = true;

	if (vm && vm_init(vm, engine, MIB(8), &e) == 0) {
		longmode_init(&lm, vm);
		make_tables(&lm);
		put_code(vm, &nothing);
		start_state(&lm, &nothing, CASE_PAGED, &start);
		has = vm_run(vm, &start, &stop, 5, &e) != VM_SHUTDOWN || stop.rip != CASE_CODE;
	}
	if (vm)
		vm_done(vm);
	free(vm);
	if (!has)
		printf("this host's KVM has no 32-bit paging: those modes are left out\n");
	return has;
}

int main(int argc, char **argv)
{
	const struct engine *engine = argc >= 2 ? vm_engine(argv[1]) : NULL;
	unsigned passed = 0, failed = 0, left_out = 0;
	enum vm_host host;

	if (argc < 2) {
		fprintf(stderr, "usage: cases jit|kvm [NAME]\n");
		return 2;
	}
	if (!engine) {
		printf("engine %s is not in this build\n", argv[1]);
		return 77;
	}
	host = vm_host(engine);
	if (host == VM_HOST_UNFIT)
		return 77;
	if (host == VM_HOST_ODD && !has_paging32(engine))
		left_out = BIT(CASE_PAGED) | BIT(CASE_PAE);
	for (unsigned i = 0; i < engine_case_count; i++)
		for (enum case_mode m = 0; m < CASE_MODES; m++) {
			const struct engine_case *c = &engine_cases[i];

			if (!(c->modes & ~left_out & BIT(m)) ||
			    (argc > 2 && !strstr(c->name, argv[2])))
				continue;
			if (run_case(engine, c, m))
				passed++;
			else
				failed++;
		}
	printf("%u passed, %u failed\n", passed, failed);
	return failed ? 1 : 0;
}
