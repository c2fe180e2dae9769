/* sys_priv: what the helpers of system instructions (seg, deliver, transfer, sys, string,
 * legacy, io_slow, fpu_slow) share. All of it is quick code (jit_priv.h). */
#pragma once

#include "cpu/jit/jit_priv.h"

#define MSR_PAT_DEFAULT 0x0007040600070406ull

static inline bool cpu_protected(const struct jit_cpu *c) /* protected mode, not virtual-8086 */
{
	return (c->st.cr0 & CR0_PE) && !(c->st.rflags & RFLAGS_VM);
}

static inline bool cpu_v86(const struct jit_cpu *c)
{
	return (c->st.cr0 & CR0_PE) && (c->st.rflags & RFLAGS_VM);
}

/* The vendors differ in SYSCALL, SYSENTER and SYSRET. */
static inline bool cpu_is_amd(const struct jit_cpu *c)
{
	return c->env && c->env->cpuid && cpuid_is_amd(c->env->cpuid);
}

static inline unsigned cpu_iopl(const struct jit_cpu *c)
{
	return c->st.rflags >> 12 & 3;
}

static inline bool is_extended(uint64_t a, unsigned bits)
{
	unsigned up = 64 - bits;

	return (uint64_t)((int64_t)(a << up) >> up) == a;
}

/* Whether code and memory can be there, as paging is now. */
static inline bool canonical(const struct jit_cpu *c, uint64_t a)
{
	return is_extended(a, c->st.cr4 & CR4_LA57 ? 57 : 48);
}

/* How wide an address may be that a base register or MSR is loaded with: as the processor can have it,
 * whatever CR4.LA57 says. */
static inline unsigned base_bits(const struct jit_cpu *c)
{
	return c->cr4_offered & CR4_LA57 ? 57 : 48;
}

static inline bool canonical_base(const struct jit_cpu *c, uint64_t a)
{
	return is_extended(a, base_bits(c));
}

/* The MMU index of an explicit access at this privilege. */
static inline enum jit_mmu mmu_for_cpl(const struct jit_cpu *c, unsigned cpl)
{
	if (cpl == 3)
		return MMU_USER;
	return c->st.rflags & RFLAGS_AC ? MMU_KERNEL_AC : MMU_KERNEL;
}

/* Address in a system table: 32 bits wide outside IA-32e mode. */
static inline uint64_t sys_addr(const struct jit_cpu *c, uint64_t base, uint64_t offset)
{
	uint64_t a = base + offset;

	return jit_long_mode(c) ? a : (uint32_t)a;
}

static inline void need_cpl0(struct jit_cpu *c)
{
	if (jit_cpl(c) != 0)
		jit_raise_err(c, X86_GP, 0);
}

/* LLDT, LTR, LAR and the like do not exist in real and virtual-8086 mode. */
static inline void need_protected(struct jit_cpu *c)
{
	if (!cpu_protected(c))
		jit_raise(c, X86_UD);
}

/* SGDT, SIDT, SLDT, STR, SMSW under CR4.UMIP (2.5). */
static inline void check_umip(struct jit_cpu *c)
{
	if ((c->st.cr4 & CR4_UMIP) && jit_cpl(c) > 0)
		jit_raise_err(c, X86_GP, 0);
}

static inline void set_rip(struct jit_cpu *c, uint64_t rip)
{
	c->st.rip = jit_code64(c) ? rip : (uint32_t)rip;
}

static inline uint64_t next_rip(const struct jit_cpu *c, uint64_t arg)
{
	uint64_t rip = c->st.rip + ARG_LEN(arg);

	return jit_code64(c) ? rip : (uint32_t)rip;
}

/* --- operands --- */
static inline uint64_t gpr_read(const struct jit_cpu *c, unsigned r, unsigned size)
{
	return trunc_bytes(c->st.gpr[r & 15], size);
}

/* 32-bit writes clear the upper half, narrower ones keep the rest. */
static inline void gpr_write(struct jit_cpu *c, unsigned r, uint64_t v, unsigned size)
{
	uint64_t *g = &c->st.gpr[r & 15];

	if (size >= 4)
		*g = trunc_bytes(v, size);
	else
		*g = (*g & ~(BIT(size * 8) - 1)) | trunc_bytes(v, size);
}

static inline uint64_t ea_read(struct jit_cpu *c, uint64_t offset, unsigned size)
{
	uint64_t gva = jit_seg_addr(c, c->ea_seg, c->ea + offset, size, ACC_READ);

	return jit_read(c, c->mmu, gva, size);
}

static inline void ea_write(struct jit_cpu *c, uint64_t offset, uint64_t v, unsigned size)
{
	uint64_t gva = jit_seg_addr(c, c->ea_seg, c->ea + offset, size, ACC_WRITE);

	jit_write(c, c->mmu, gva, v, size);
}

static inline uint64_t rm_read(struct jit_cpu *c, uint64_t arg, unsigned size)
{
	if (ARG_R2(arg) == ARG_MEM)
		return ea_read(c, 0, size);
	return gpr_read(c, ARG_R2(arg), size);
}

static inline void rm_write(struct jit_cpu *c, uint64_t arg, uint64_t v, unsigned size)
{
	if (ARG_R2(arg) == ARG_MEM)
		ea_write(c, 0, v, size);
	else
		gpr_write(c, ARG_R2(arg), v, size);
}

/* --- the current stack --- */
static inline uint64_t stack_mask(const struct jit_cpu *c)
{
	if (jit_code64(c))
		return ~UINT64_C(0);
	return c->st.seg[X86_SS].attr & SEG_DB ? 0xffffffffu : 0xffffu;
}

static inline uint64_t stack_top(const struct jit_cpu *c)
{
	return c->st.gpr[X86_RSP] & stack_mask(c);
}

static inline void stack_set(struct jit_cpu *c, uint64_t sp)
{
	uint64_t mask = stack_mask(c);

	if (mask == 0xffff)
		sp = (c->st.gpr[X86_RSP] & ~mask) | (sp & mask);
	c->st.gpr[X86_RSP] = mask == 0xffffffffu ? (uint32_t)sp : sp;
}

/* Reads at the top of stack + offset, without popping. */
static inline uint64_t stack_peek(struct jit_cpu *c, uint64_t offset, unsigned size)
{
	uint64_t at = (stack_top(c) + offset) & stack_mask(c);

	return jit_read(c, c->mmu, jit_seg_addr(c, X86_SS, at, size, ACC_READ), size);
}

static inline void stack_push(struct jit_cpu *c, uint64_t v, unsigned size)
{
	uint64_t at = (stack_top(c) - size) & stack_mask(c);

	jit_write(c, c->mmu, jit_seg_addr(c, X86_SS, at, size, ACC_WRITE), v, size);
	stack_set(c, at);
}

/* --- seg.c: descriptors --- */
static inline uint16_t desc_attr(uint64_t d)
{
	return (uint16_t)((d >> 40 & 0xff) | (d >> 44 & 0xf00));
}

static inline unsigned attr_dpl(uint16_t attr)
{
	return attr >> SEG_DPL_SHIFT & 3;
}

static inline bool attr_is_code(uint16_t attr)
{
	return (attr & (SEG_S | 8)) == (SEG_S | 8);
}

static inline bool attr_is_conforming(uint16_t attr)
{
	return (attr & (SEG_S | 0xc)) == (SEG_S | 0xc);
}

static inline bool attr_is_writable_data(uint16_t attr)
{
	return (attr & (SEG_S | 8 | 2)) == (SEG_S | 2);
}

static inline bool attr_is_readable(uint16_t attr)
{
	return (attr & SEG_S) && ((attr & 8) == 0 || (attr & 2));
}

/* Where the selector's descriptor lies; false if outside its table. */
bool desc_locate(const struct jit_cpu *c, uint16_t sel, unsigned bytes, uint64_t *gva);
/* Reads the 8-byte descriptor; raises v with the selector (and ext) as error code when there
 * is none. */
uint64_t desc_read(struct jit_cpu *c, uint16_t sel, enum x86_vector v, unsigned ext);
/* The upper half of a 16-byte system descriptor; the same. */
uint64_t desc_read_high(struct jit_cpu *c, uint16_t sel, enum x86_vector v);
/* Sets the accessed bit in memory if it is clear. */
void desc_set_accessed(struct jit_cpu *c, uint16_t sel, uint64_t d);
void seg_unpack(struct x86_seg *s, uint16_t sel, uint64_t d);
void seg_set_null(struct x86_seg *s, uint16_t sel);
void seg_set_flat(struct x86_seg *s, uint16_t sel, uint16_t attr);
void seg_set_v86(struct x86_seg *s, uint16_t sel);
/* Loads a data or stack segment register as MOV does; real, virtual-8086 and protected. */
void seg_load(struct jit_cpu *c, enum x86_sreg r, uint16_t sel);
/* Drops data segments that an outer privilege level may not use (IRET, far RET). */
void seg_drop_privileged(struct jit_cpu *c, unsigned cpl);

/* --- deliver.c: the stack of an inner (or the same) privilege level, before it is taken --- */
struct inner_stack {
	struct x86_seg ss;
	uint64_t sp, mask;
	enum jit_mmu mmu;
	unsigned ext; /* error code of a stack fault while pushing */
};

/* From the TSS; legacy formats only (SDM 6.12.1, 5.8.5). */
void inner_stack_legacy(struct jit_cpu *c, struct inner_stack *s, unsigned cpl, unsigned ext);
/* RSPn (n < 3) or ISTn (n + 3 for IST 1..7) of the 64-bit TSS. */
uint64_t tss64_rsp(struct jit_cpu *c, unsigned n, unsigned ext);
/* Checks all n slots, then writes v[0] first (highest address). Moves s->sp. */
void inner_stack_push(struct jit_cpu *c, struct inner_stack *s, const uint64_t *v, unsigned n,
		      unsigned size);
/* INT n and friends: delivers with next as the return address; st.rip stays at the instruction
 * if it faults. check_dpl is false for INT1. */
void deliver_soft(struct jit_cpu *c, uint8_t vector, uint64_t next, bool check_dpl);

/* --- task.c: hardware task switches (SDM 8) --- */
enum task_switch { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT /* a task gate in the IDT */ };

struct task_event {
	uint64_t next; /* the old task's RIP and flags, for its TSS */
	uint32_t flags;
	bool has_error; /* goes to the new task's stack */
	uint32_t error;
	unsigned ext; /* EXT bit of the error codes of faults on the way */
};

/* To the task whose TSS sel names; raises in the old task's or the new one's context. */
void task_switch(struct jit_cpu *c, uint16_t sel, enum task_switch why, const struct task_event *e);
/* IRET with NT, to the task that the current TSS links to. */
void task_return(struct jit_cpu *c, uint64_t next);
/* Far JMP or CALL; false: sel names neither a TSS nor a task gate. */
bool task_far(struct jit_cpu *c, uint16_t sel, uint64_t next, bool call);

/* --- transfer.c --- */
/* Replaces those RFLAGS bits that mask names, arithmetic ones included. */
void flags_write(struct jit_cpu *c, uint64_t value, uint64_t mask);

/* --- msr_jit.c --- */
uint64_t jit_tsc(const struct jit_cpu *c);
/* false: #GP */
bool jit_msr_read(struct jit_cpu *c, uint32_t msr, uint64_t *v);
bool jit_msr_write(struct jit_cpu *c, uint32_t msr, uint64_t v);

/* --- kvmclock_slow.c: call jit_fpu_leave first --- */
/* Publishes the vCPU's clock page if the guest registered one (again after load or pause). */
void kvmclock_publish(struct jit_cpu *c);
/* Writes the wall clock at guest time 0 to gpa. */
void kvmclock_wall(struct jit_cpu *c, uint64_t gpa);

/* --- engine_slow.c: call jit_fpu_leave first --- */
void jit_unhalt(struct jit_vm *vm, uint32_t apic_id); /* does nothing if there is none */

/* --- sys.c --- */
/* Whether the PDPTEs that cr3 points to are loadable (4.4.1); true when PAE paging is off. */
bool pdptes_valid(struct jit_cpu *c, uint64_t cr0, uint64_t cr3, uint64_t cr4);
