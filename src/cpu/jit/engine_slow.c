/* engine: the JIT behind the engine table: making and freeing, state in and out, sleeping. */
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/auto.h"
#include "cpu/jit/core.h"
#include "cpu/jit/gs.h"
#include "cpu/jit/pcid.h"
#include "cpu/jit/sys_priv.h"
#include "cpu/jit/translate.h"
#include "cpu/jit/window.h"

#define SPIN_MAX_NS 50000 /* of a halted vCPU */

static uint64_t tsc(void)
{
	return __rdtsc();
}

static struct jit_vm *to_vm(struct engine_vm *v)
{
	return container_of(v, struct jit_vm, base);
}

/* ---- the guest's vector state ---- */

void jit_fpu_leave(struct jit_cpu *c)
{
	static const uint32_t mxcsr_default = 0x1f80;
	uint64_t m = c->p->xsave_mask;

	if (!c->fpu_live)
		return;
	c->fpu_live = false;
	__asm__ volatile("xsave64 %0"
			 : "+m"(c->st.xsave)
			 : "a"((uint32_t)m), "d"((uint32_t)(m >> 32))
			 : "memory");
	__asm__ volatile("fninit; ldmxcsr %0" ::"m"(mxcsr_default));
	if (m & XCR0_AVX)
		__asm__ volatile("vzeroupper" ::: "memory");
}

void jit_fpu_enter(struct jit_cpu *c)
{
	uint64_t m = c->p->xsave_mask;

	__asm__ volatile("xrstor64 %0" ::"m"(c->st.xsave), "a"((uint32_t)m),
			 "d"((uint32_t)(m >> 32))
			 : "memory");
	c->fpu_live = true;
}

/* A stored image may be hostile: XRSTOR must not fault on it. Neither on PKRU, which the host may not
 * have: we keep it. */
static void take_xsave(struct jit_cpu *c)
{
	uint64_t all = load_le(c->st.xsave + 512, 8), bv = all & c->p->xsave_mask;
	uint32_t mxcsr = (uint32_t)load_le(c->st.xsave + 24, 4) & 0xffff;

	store_le(c->st.xsave + 24, mxcsr, 4);
	memset(c->st.xsave + 512, 0, 64);
	store_le(c->st.xsave + 512, bv, 8);
	c->pkru = 0;
	if ((all & XCR0_PKRU) && c->p->pkru_off)
		c->pkru = (uint32_t)load_le(c->st.xsave + c->p->pkru_off, 4);
}

static void put_pkru(const struct jit_cpu *c, struct x86_state *s)
{
	if (!c->p->pkru_off)
		return;
	store_le(s->xsave + c->p->pkru_off, c->pkru, 8);
	if (c->pkru)
		store_le(s->xsave + 512, load_le(s->xsave + 512, 8) | XCR0_PKRU, 8);
}

/* ---- what others write over code ---- */

static void poke(struct jit_cpu *c)
{
	int saved = errno; /* callers may be signal handlers */

	atomic_store(&c->attention, 1);
	atomic_fetch_add(&c->p->wake, 1);
	if (atomic_load(&c->p->asleep))
		syscall(SYS_futex, &c->p->wake, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	errno = saved;
}

static void page_written(struct mem_watch *watch, gpa_t gpa)
{
	struct jit_written *w = container_of(watch, struct jit_written, watch);
	struct jit_vm *vm = container_of(w, struct jit_vm, written);

	AUTO_LOCK(&w->lock);
	if (w->pages < WRITTEN_MAX)
		w->page[w->pages] = gpa;
	if (w->pages <= WRITTEN_MAX)
		w->pages++;
	atomic_store(&w->any, true);
	for (unsigned i = 0; i < vm->cpus; i++) /* who sleeps comes by there as well */
		atomic_store(&vm->cpu[i]->attention, 1);
}

uint32_t jit_written_take(struct jit_vm *vm, gpa_t page[WRITTEN_MAX])
{
	struct jit_written *w = &vm->written;
	uint32_t n;

	AUTO_LOCK(&w->lock);
	atomic_store(&w->any, false);
	n = w->pages;
	w->pages = 0;
	memcpy(page, w->page, min_u64(n, WRITTEN_MAX) * sizeof *page);
	return n;
}

static void add_cpu(struct jit_vm *vm, struct jit_cpu *c)
{
	AUTO_LOCK(&vm->written.lock);
	vm->cpu[vm->cpus++] = c;
	world_add(&vm->world, &c->p->member);
}

static void remove_cpu(struct jit_vm *vm, struct jit_cpu *c)
{
	AUTO_LOCK(&vm->written.lock);
	for (unsigned i = 0; i < vm->cpus; i++)
		if (vm->cpu[i] == c) {
			vm->cpu[i] = vm->cpu[--vm->cpus];
			world_remove(&vm->world, &c->p->member);
			return;
		}
}

/* ---- VM and vCPU ---- */

static void vm_free(struct engine_vm *v)
{
	struct jit_vm *vm;

	if (!v)
		return;
	vm = to_vm(v);
	if (!vm->env.always_loaded)
		mem_watch(vm->env.mem, NULL);
	pthread_mutex_destroy(&vm->written.lock);
	jit_cache_done(&vm->cache);
	free(vm->xlate);
	free(vm);
}

static int vm_new(struct engine_vm **out, const struct engine_env *env, struct err *e)
{
	struct jit_vm *vm = calloc(1, sizeof *vm);
	int r;

	if (!vm)
		return err_set(e, ENOMEM, "no memory for the VM");
	vm->base.engine = &engine_jit;
	vm->env = *env;
	vm->host_cpus = (unsigned)get_nprocs();
	vm->written.watch.written = page_written;
	pthread_mutex_init(&vm->written.lock, NULL);
	if (!env->always_loaded)
		mem_watch(env->mem, &vm->written.watch);
	vm->amd = cpuid_is_amd(env->cpuid);
	vm->window_maps_max = jit_windows_budget();
	vm->xlate = calloc(1, sizeof *vm->xlate);
	jit_isa_init(vm->isa_ok, env->cpuid);
	r = vm->xlate ? jit_signals_init(e) : err_set(e, ENOMEM, "no memory for the translator");
	if (!r)
		r = jit_cache_init(&vm->cache, env->mem, env->code_cache_bytes, e);
	if (r < 0)
		vm_free(&vm->base);
	else
		*out = &vm->base;
	return r;
}

static void vcpu_free(struct vcpu *v)
{
	struct jit_cpu *c;

	if (!v)
		return;
	c = to_jit(v);
	remove_cpu(c->vm, c);
	jit_windows_done(c);
	steal_done(c);
	free(c->p->pcids);
	free(c->p);
	munmap(c, sizeof *c);
}

/* A bit of CR4 exists where CPUID shows the feature. */
static uint32_t cr4_offered(const struct cpuid_table *t)
{
	static const struct {
		uint32_t cr4, leaf;
		uint8_t reg, bit;
	} by_feature[] = {
		{CR4_TSD, 1, CPUID_EDX, 4},      {CR4_DE, 1, CPUID_EDX, 2},
		{CR4_PSE, 1, CPUID_EDX, 3},      {CR4_PAE, 1, CPUID_EDX, 6},
		{CR4_MCE, 1, CPUID_EDX, 7},      {CR4_PGE, 1, CPUID_EDX, 13},
		{CR4_OSFXSR, 1, CPUID_EDX, 24},  {CR4_OSXMMEXCPT, 1, CPUID_EDX, 25},
		{CR4_OSXSAVE, 1, CPUID_ECX, 26}, {CR4_FSGSBASE, 7, CPUID_EBX, 0},
		{CR4_SMEP, 7, CPUID_EBX, 7},     {CR4_SMAP, 7, CPUID_EBX, 20},
		{CR4_UMIP, 7, CPUID_ECX, 2},     {CR4_LA57, 7, CPUID_ECX, 16},
		{CR4_PCIDE, 1, CPUID_ECX, 17},   {CR4_PKE, 7, CPUID_ECX, 3},
	};
	uint32_t cr4 = CR4_PCE;

	for (unsigned i = 0; i < ARRAY_SIZE(by_feature); i++)
		if (cpuid_has(t, by_feature[i].leaf, 0, by_feature[i].reg, by_feature[i].bit))
			cr4 |= by_feature[i].cr4;
	return cr4;
}

static int vcpu_new(struct vcpu **out, struct engine_vm *base, uint32_t index, struct err *e)
{
	struct jit_vm *vm = to_vm(base);
	struct jit_cpu *c =
		mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static const struct x86_state none;
	uint32_t leaf[4];

	if (c == MAP_FAILED)
		return err_sys(e, errno, "vCPU %u", index);
	c->p = calloc(1, sizeof *c->p);
	if (c->p) {
		c->p->win = calloc(1, sizeof *c->p->win);
		c->p->pcids = calloc(1, sizeof *c->p->pcids);
	}
	if (!c->p || !c->p->win || !c->p->pcids) {
		if (c->p) {
			free(c->p->win);
			free(c->p->pcids);
		}
		free(c->p);
		munmap(c, sizeof *c);
		return err_set(e, ENOMEM, "no memory for vCPU %u", index);
	}
	c->pauses = 1;
	c->p->member.attention = &c->attention;
	c->p->spin.max_ns = spin_limit(SPIN_MAX_NS);
	c->self = c;
	c->vm = vm;
	c->env = &vm->env;
	c->vcpu = (struct vcpu){.engine = &engine_jit, .vm = base, .index = index};
	cpuid_query(vm->env.cpuid, &none, index, 0x80000008, 0, leaf);
	c->p->win->at_once = vm->env.windows_at_once;
	c->phys_bits = (uint8_t)(leaf[0] ? leaf[0] & 0xff : 36);
	cpuid_query(vm->env.cpuid, &none, index, 0x80000001, 0, leaf);
	c->gib_pages = leaf[3] >> 26 & 1;
	c->cr4_offered = cr4_offered(vm->env.cpuid);
	c->p->xsave_mask = (vm->env.cpuid->xcr0_mask | XCR0_X87 | XCR0_SSE) & ~(uint64_t)XCR0_PKRU;
	cpuid_query(vm->env.cpuid, &none, index, 0xd, 5, leaf);
	c->p->opmask_off = leaf[1];
	cpuid_query(vm->env.cpuid, &none, index, 0xd, 2, leaf);
	c->p->ymm_off = leaf[1];
	cpuid_query(vm->env.cpuid, &none, index, 0xd, 9, leaf);
	if (leaf[0] && leaf[1] + leaf[0] <= X86_XSAVE_BYTES)
		c->p->pkru_off = leaf[1];
	jit_tlb_init(c);
	x86_state_reset(&c->st, index);
	for (enum jit_mmu m = 0; m < 3; m++)
		jit_jump_clear(c, m);
	jit_mode_update(c);
	add_cpu(vm, c);
	*out = &c->vcpu;
	return 0;
}

/* ---- running ---- */

static int run_some(struct vcpu *v, bool single, enum vcpu_stop *why)
{
	struct jit_cpu *c = to_jit(v), *outer = jit_current;
	uint64_t gs = jit_gs_get();

	jit_gs_set((uint64_t)c);
	jit_current = c;
	jit_move(c);
	*why = jit_run_loop(c, single);
	jit_fpu_leave(c);
	jit_still(c, WORLD_OUT);
	jit_current = outer;
	jit_gs_set(gs);
	return 0;
}

static int run(struct vcpu *v, enum vcpu_stop *why, struct err *e)
{
	return run_some(v, false, why);
}

static int step(struct vcpu *v, enum vcpu_stop *why, struct err *e)
{
	return run_some(v, true, why);
}

static bool woken(struct jit_cpu *c, uint32_t seen)
{
	return atomic_load_explicit(&c->p->wake, memory_order_acquire) != seen;
}

void jit_sleep(struct jit_cpu *c, uint32_t seen)
{
	struct spin *s = &c->p->spin;
	uint64_t begin = spin_now();

	/* Where there are more vCPUs than CPUs, another has better use for this one. */
	while (c->vm->cpus <= c->vm->host_cpus && s->budget_ns && !woken(c, seen) &&
	       spin_now() - begin < s->budget_ns)
		__builtin_ia32_pause();
	if (!woken(c, seen)) {
		steal_away(c);
		/* Then the kernel's look at wake: pairs with poke, which counts first. */
		atomic_store(&c->p->asleep, 1);
		syscall(SYS_futex, &c->p->wake, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
		atomic_store(&c->p->asleep, 0);
	}
	spin_waited(s, spin_now() - begin);
}

static void kick(struct vcpu *v)
{
	atomic_store(&to_jit(v)->kicked, true);
	poke(to_jit(v));
}

static void irq(struct vcpu *v)
{
	atomic_store(&to_jit(v)->irq_hint, true);
	poke(to_jit(v));
}

void jit_unhalt(struct jit_vm *vm, uint32_t apic_id)
{
	for (unsigned i = 0; i < vm->cpus; i++)
		if (vm->cpu[i]->vcpu.index == apic_id) {
			atomic_store(&vm->cpu[i]->p->unhalted, true);
			poke(vm->cpu[i]);
		}
}

static uint64_t guest_tsc(struct vcpu *v)
{
	return tsc() + to_jit(v)->tsc_offset;
}

/* Its kvmclock stands still with it, as it counts TSC from a point that was published. All vCPUs
 * stand still from the same moment to the same moment, so that their TSCs stay in step. */
static void freeze(struct vcpu *v, bool frozen)
{
	struct jit_cpu *c = to_jit(v);
	struct jit_vm *vm = c->vm;

	futex_take(&vm->time_lock);
	if (frozen) {
		if (!vm->frozen++)
			vm->frozen_at = tsc();
		vm->thawed_at = 0;
		c->frozen_tsc = vm->frozen_at + c->tsc_offset;
	} else {
		if (!vm->thawed_at) {
			vm->thawed_at = tsc();
			if (vm->clock_tsc)
				vm->clock_tsc += vm->thawed_at - vm->frozen_at;
		}
		c->tsc_offset = c->frozen_tsc - vm->thawed_at;
		vm->frozen--;
	}
	futex_give(&vm->time_lock);
}

/* The vCPUs of a VM are loaded one after another with the same time: it is meant to be the same on
 * all of them. The guest can set them apart itself, through the MSR. */
static uint64_t tsc_offset_for(const struct jit_cpu *c, uint64_t guest_tsc)
{
	uint64_t offset = guest_tsc - tsc(), second = c->env->cpuid->tsc_hz;
	const struct jit_vm *vm = c->vm;

	for (unsigned i = 0; i < vm->cpus; i++)
		if (vm->cpu[i] != c && vm->cpu[i]->tsc_offset - offset + second < 2 * second)
			return vm->cpu[i]->tsc_offset;
	return offset;
}

static void flush_code(struct jit_cpu *c)
{
	jit_flush_all(c, c->vm->cache.flushes);
	jit_still(c, WORLD_OUT);
}

/* What is hot is translated again in no time. */
static void trim(struct vcpu *v)
{
	struct jit_cpu *c = to_jit(v);

	flush_code(c);
	jit_cache_lock(c);
	jit_templates_release(&c->vm->cache);
	jit_cache_unlock(c);
}

static int load(struct vcpu *v, const struct x86_state *s, struct err *e)
{
	struct jit_cpu *c = to_jit(v);

	c->fpu_live = false;
	c->st = *s;
	c->tables_mode[MMU_KERNEL_AC] = ~0u; /* SMAP may be another (write_cr4) */
	take_xsave(c);
	jit_flags_set_arith(c, (uint32_t)s->rflags);
	c->tsc_offset = tsc_offset_for(c, s->tsc);
	c->vm->clock_tsc = 0;
	c->delivering = false;
	c->dr6_hits = 0;
	c->p->step_once = false;
	/* Memory may have changed with the state (a snapshot, or steps aside from KVM). */
	if (c->vm->cache.next_id)
		flush_code(c);
	jit_tlb_flush(c, true);
	for (enum jit_mmu m = 0; m < 3; m++)
		jit_jump_clear(c, m);
	jit_mode_update(c);
	if (v->lapic)
		v->lapic->ops->load(v->lapic, s);
	return 0;
}

static int store(struct vcpu *v, struct x86_state *s, struct err *e)
{
	struct jit_cpu *c = to_jit(v);

	*s = c->st;
	s->rflags = jit_flags_get(c);
	put_pkru(c, s);
	s->tsc = guest_tsc(v);
	if (v->lapic)
		v->lapic->ops->store(v->lapic, s);
	return 0;
}

/* Up to the segments, control registers and those MSRs that are registers of a kind. */
static int load_regs(struct vcpu *v, const struct x86_state *s, struct err *e)
{
	struct jit_cpu *c = to_jit(v);

	c->fpu_live = false;
	memcpy(&c->st, s, offsetof(struct x86_state, pat));
	memcpy(c->st.xsave, s->xsave, sizeof c->st.xsave);
	take_xsave(c);
	jit_flags_set_arith(c, (uint32_t)s->rflags);
	c->p->step_once = false;
	jit_tlb_flush(c, true);
	jit_mode_update(c);
	return 0;
}

static bool same_points(const struct engine_debug *a, const struct engine_debug *b)
{
	return a->points == b->points &&
	       memcmp(a->point, b->point, a->points * sizeof a->point[0]) == 0;
}

/* Debuggers take out all points at each stop, step over one, and put them back: code is made anew
 * only when the vCPU is to run freely with other points than it was made for. */
static int set_debug(struct vcpu *v, const struct engine_debug *d, struct err *e)
{
	static const struct engine_debug none;
	struct jit_debug *to = &to_jit(v)->p->debug;
	struct jit_vm *vm = to_jit(v)->vm;
	bool watches = false;

	d = d ? d : &none;
	for (unsigned n = 0; n < d->points; n++) {
		if (!(BIT(d->point[n].kind) & engine_jit.debug_kinds))
			return err_set(e, ENOTSUP, "a point of kind %u", d->point[n].kind);
		watches |= d->point[n].kind != DEBUG_EXEC;
	}
	if ((watches || to->watches) && !same_points(d, &to->want))
		jit_tlb_flush(to_jit(v), true);
	to->want = *d;
	to->watches = watches;
	to->on = d->points || d->step;
	jit_mode_update(to_jit(v)); /* watched memory is not for windows */
	to->hit = false;
	vm->debug = false;
	for (unsigned i = 0; i < vm->cpus; i++)
		vm->debug |= vm->cpu[i]->p->debug.want.points;
	if (!d->step && !same_points(d, &to->built)) {
		flush_code(to_jit(v));
		to->built = *d;
	}
	return 0;
}

static void stats(struct engine_vm *base, char *to, uint32_t len)
{
	const struct jit_cache *k = &to_vm(base)->cache;

	snprintf(
		to, len,
		"%lu blocks translated, %lu copied, %lu of them dropped; the code cache was full %lu "
		"times, what is kept to be copied %lu times",
		(unsigned long)(k->translated - k->templates.copied),
		(unsigned long)k->templates.copied, (unsigned long)k->invalidated,
		(unsigned long)k->flushes, (unsigned long)k->templates.dropped);
}

const struct engine engine_jit = {
	.name = "jit",
	.debug_points = DEBUG_POINTS_MAX,
	.debug_kinds = BIT(DEBUG_EXEC) | BIT(DEBUG_WRITE) | BIT(DEBUG_READ) | BIT(DEBUG_ACCESS),
	.vm_new = vm_new,
	.vm_free = vm_free,
	.vcpu_new = vcpu_new,
	.vcpu_free = vcpu_free,
	.run = run,
	.step = step,
	.kick = kick,
	.irq = irq,
	.load = load,
	.store = store,
	.load_regs = load_regs,
	.set_debug = set_debug,
	.tsc = guest_tsc,
	.freeze = freeze,
	.trim = trim,
	.stats = stats,
};
