#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODE_GPA  0x400000u
#define DATA_GPA  0x300000u
#define RAM_BYTES MIB(8)

static uint8_t *data_page(void *ctx, unsigned n)
{
	struct guest_runner *g = ctx;

	return n == 1 || n == 2 || n == 5 ? vm_ram(g->vm, DATA_GPA + n * PAGE, PAGE) : NULL;
}

/* The pages of the case's code are mapped at these, too, as far from CODE_BASE. */
static const uint64_t elsewhere[] = {0x4000000, 0x8000000};

static void map_code(struct guest_runner *g, uint64_t by)
{
	for (uint64_t at = 0; at < CODE_BYTES; at += PAGE)
		longmode_map(&g->lm, CODE_BASE + by + at, CODE_GPA + at, PTE_P | PTE_U);
}

static int prepare(struct batch_runner *b, const struct user_case *cases, unsigned n,
		   const struct user_image *image, struct err *e)
{
	struct guest_runner *g = container_of(b, struct guest_runner, runner);
	uint8_t *code;
	int r;

	g->vm = calloc(1, sizeof *g->vm);
	if (!g->vm)
		return err_set(e, ENOMEM, "a test VM");
	g->vm->windows = g->windows;
	r = vm_init(g->vm, g->engine, RAM_BYTES, e);
	if (r < 0)
		return err_wrap(e, "make a VM on engine %s", g->engine->name);
	longmode_init(&g->lm, g->vm);
	map_code(g, 0);
	for (unsigned i = 0; g->moved && i < ARRAY_SIZE(elsewhere); i++)
		map_code(g, elsewhere[i]);
	for (unsigned i = 0; i < DATA_RW_PAGES; i++)
		longmode_map(&g->lm, DATA_BASE + data_rw_page(i) * PAGE,
			     DATA_GPA + data_rw_page(i) * PAGE, PTE_P | PTE_U | PTE_W | PTE_NX);
	longmode_map(&g->lm, DATA_BASE + DATA_RO_PAGE * PAGE, DATA_GPA + DATA_RO_PAGE * PAGE,
		     PTE_P | PTE_U | PTE_NX);
	memcpy(vm_ram(g->vm, DATA_GPA + DATA_RO_PAGE * PAGE, PAGE), image->page[DATA_RW_PAGES],
	       PAGE);
	code = vm_ram(g->vm, CODE_GPA, CODE_BYTES);
	memset(code, 0xcc, CODE_BYTES);
	for (unsigned i = 0; i < n; i++)
		memcpy(code + (cases[i].start.rip - CODE_BASE), cases[i].bytes, cases[i].len);
	return 0;
}

static void take_end(struct guest_runner *g, const struct x86_state *s,
		     const struct longmode_trap *t, const struct user_case *c, struct user_end *end)
{
	memcpy(end->s.gpr, s->gpr, sizeof s->gpr);
	end->s.gpr[X86_RSP] = t->rsp;
	for (int i = 0; c->compat && i < 16; i++)
		end->s.gpr[i] = i < 8 ? end->s.gpr[i] & 0xffffffff : 0;
	end->s.rip = t->rip;
	end->s.rflags = t->rflags;
	end->s.fs_base = s->seg[X86_FS].base;
	end->s.gs_base = s->seg[X86_GS].base;
	memcpy(end->s.xsave, s->xsave, sizeof s->xsave);
	end->vector = t->vector;
	end->error = (uint32_t)t->error;
	end->cr2 = t->vector == X86_PF ? s->cr2 : 0;
	end->ran = true;
	for (unsigned i = 0; i < DATA_RW_PAGES; i++)
		memcpy(end->mem[i], data_page(g, data_rw_page(i)), PAGE);
}

static void start_of(struct guest_runner *g, const struct user_case *c,
		     const struct user_image *image, struct x86_state *start)
{
	*start = g->lm.base;
	longmode_to_user(start, c->compat ? USER_CS32 : USER_CS64);
	memcpy(start->gpr, c->start.gpr, sizeof start->gpr);
	start->rip = c->start.rip;
	start->rflags = c->start.rflags;
	start->seg[X86_FS].base = c->start.fs_base;
	start->seg[X86_GS].base = c->start.gs_base;
	memcpy(start->xsave, c->start.xsave, sizeof start->xsave);
	for (unsigned i = 0; i < DATA_RW_PAGES; i++)
		memcpy(data_page(g, data_rw_page(i)), image->page[i], PAGE);
	user_apply_patches(c, data_page, g);
}

/* How it ends there is not looked at: it may miss its data. */
static void run_elsewhere(struct guest_runner *g, const struct user_case *c,
			  const struct user_image *image)
{
	for (unsigned n = 0; n < ARRAY_SIZE(elsewhere); n++) {
		struct x86_state start, stop;
		struct err e;

		start_of(g, c, image, &start);
		start.rip += elsewhere[n];
		(void)vm_run(g->vm, &start, &stop, 1, &e);
	}
}

static void one(struct batch_runner *b, const struct user_case *c, const struct user_image *image,
		struct user_end *end)
{
	struct guest_runner *g = container_of(b, struct guest_runner, runner);
	struct x86_state start, stop;
	struct longmode_trap t;
	struct err e = {0};
	enum vm_end how;

	if (g->moved)
		run_elsewhere(g, c, image);
	start_of(g, c, image, &start);
	how = vm_run(g->vm, &start, &stop, 0, &e);
	if (how != VM_STOPPED)
		snprintf(end->broke, sizeof end->broke, "%.70s",
			 how == VM_SHUTDOWN ? "triple fault"
			 : how == VM_HALTED ? "halted"
			 : e.text[0]        ? e.text
					    : "run failed");
	else if (!longmode_trapped(&g->lm, &stop, &t))
		snprintf(end->broke, sizeof end->broke, "stopped outside the stubs at %#lx",
			 stop.rip);
	else
		take_end(g, &stop, &t, c, end);
}

void guest_runner_init(struct guest_runner *g, const struct engine *engine)
{
	*g = (struct guest_runner){.runner = {prepare, one}, .engine = engine};
}
