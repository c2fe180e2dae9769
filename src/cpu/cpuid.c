/* cpuid: the host's leaves are read once, then cut by the tables below: a feature is offered if the host has it and the engine carries it, or if the engine
 * makes it whatever the host has. Topology, XSAVE and hypervisor leaves are written new.
 * SDM volume 2A, CPUID; AMD APM volume 3, appendix E. */
#include "cpu/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cpu/x86_state.h"

#define MAX_BASIC        0x16u
#define MAX_EXTENDED     0x80000021u
#define KVM_BASE         0x40000000u
#define KVM_MAX          0x40000010u
#define PHYS_BITS_MAX    46u
#define APIC_HZ_DEFAULT  1000000000u
#define XCR0_CARRIED     (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512)
#define PKRU_COMPONENT   9
#define PKRU_OFFSET_MIN  2432u /* AMD's, whatever else there is */
#define KVM_NOP_IO_DELAY (1u << 1)
#define KVM_CLOCKSOURCE2 (1u << 3)
#define KVM_STEAL_TIME   (1u << 5)
#define KVM_PV_UNHALT    (1u << 7)
#define KVM_PV_TLB_FLUSH (1u << 9)
#define KVM_PV_SEND_IPI  (1u << 11)
#define KVM_BY_JIT       (KVM_STEAL_TIME | KVM_PV_UNHALT | KVM_PV_TLB_FLUSH | KVM_PV_SEND_IPI)
#define KVM_CLOCK_STABLE (1u << 24)
#define MEASURE_NS       1000000u /* TSCs step by up to 10 ns: this is within 10 ppm */

/* --- what the JIT carries --- */
struct feature_rule {
	uint32_t leaf, subleaf;
	uint8_t reg;
	uint32_t from_host; /* offered if the host has it */
	uint32_t always;    /* made by the engine */
};

#define B(n) (1u << (n))

/* clang-format off */
static const struct feature_rule jit_rules[] = {
	/* SSE3 PCLMUL SSSE3 FMA CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND;
	 * PCID, TSC deadline, hypervisor */
	{1, 0, CPUID_ECX, B(0) | B(1) | B(9) | B(12) | B(13) | B(19) | B(20) | B(22) | B(23) | B(25) |
		B(26) | B(28) | B(29) | B(30), B(17) | B(24) | B(31)},
	/* self-snoop; FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX
	 * FXSR SSE SSE2 */
	{1, 0, CPUID_EDX, B(27), B(0) | B(2) | B(3) | B(4) | B(5) | B(6) | B(7) | B(8) | B(9) | B(11) |
		B(12) | B(13) | B(14) | B(15) | B(16) | B(17) | B(19) | B(23) | B(24) | B(25) | B(26)},
	/* BMI1 AVX2 FDP-exception-only BMI2 ERMS FCS/FDS-deprecated AVX512F DQ RDSEED ADX IFMA
	 * CLFLUSHOPT CLWB CD SHA BW VL; FSGSBASE TSC_ADJUST SMEP INVPCID SMAP */
	{7, 0, CPUID_EBX, B(3) | B(5) | B(6) | B(8) | B(9) | B(13) | B(16) | B(17) | B(18) | B(19) |
		B(21) | B(23) | B(24) | B(28) | B(29) | B(30) | B(31), B(0) | B(1) | B(7) | B(10) | B(20)},
	/* VBMI VBMI2 GFNI VAES VPCLMUL VNNI BITALG VPOPCNTDQ; UMIP PKU RDPID */
	{7, 0, CPUID_ECX, B(1) | B(6) | B(8) | B(9) | B(10) | B(11) | B(12) | B(14), B(2) | B(3) | B(22)},
	/* FSRM VP2INTERSECT FP16 */
	{7, 0, CPUID_EDX, B(4) | B(8) | B(23), 0},
	/* AVX-VNNI AVX512-BF16, fast zero-length and short string operations */
	{7, 1, CPUID_EAX, B(4) | B(5) | B(10) | B(11) | B(12), 0},
	/* LAHF ABM SSE4A MISALIGNSSE PREFETCHW TOPOEXT */
	{0x80000001, 0, CPUID_ECX, B(5) | B(6) | B(7) | B(8) | B(22), B(0)},
	/* MMXEXT FXSR_OPT; SYSCALL NX PDPE1GB RDTSCP LM */
	{0x80000001, 0, CPUID_EDX, B(22) | B(25), B(11) | B(20) | B(26) | B(27) | B(29)},
	/* XSAVE saves error pointers, SSB_NO */
	{0x80000008, 0, CPUID_EBX, B(2) | B(26), 0},
	/* no nested data breakpoint, LFENCE serialises; a null selector clears the base */
	{0x80000021, 0, CPUID_EAX, B(0) | B(2), B(6)},
};

/* Features that need a state component. */
static const struct feature_rule need_avx[] = {
	{1, 0, CPUID_ECX, B(12) | B(28) | B(29), 0},
	{7, 0, CPUID_EBX, B(5), 0},
	{7, 0, CPUID_ECX, B(9) | B(10), 0},
	{7, 1, CPUID_EAX, B(4) | B(23), 0},
	{0x80000001, 0, CPUID_ECX, B(11) | B(16), 0}, /* XOP FMA4 */
};
static const struct feature_rule need_avx512[] = {
	{7, 0, CPUID_EBX, B(16) | B(17) | B(21) | B(26) | B(27) | B(28) | B(30) | B(31), 0},
	{7, 0, CPUID_ECX, B(1) | B(6) | B(11) | B(12) | B(14), 0},
	{7, 0, CPUID_EDX, B(2) | B(3) | B(8) | B(23), 0},
	{7, 1, CPUID_EAX, B(5), 0},
};
/* clang-format on */

/* --- the table --- */
static uint32_t *leaf_reg(struct cpuid_leaf *l, int reg)
{
	switch (reg) {
	case CPUID_EAX: return &l->eax;
	case CPUID_EBX: return &l->ebx;
	case CPUID_ECX: return &l->ecx;
	default: return &l->edx;
	}
}

static const struct cpuid_leaf *find(const struct cpuid_table *t, uint32_t leaf, uint32_t sub)
{
	for (unsigned i = 0; i < t->count; i++)
		if (t->leaf[i].leaf == leaf &&
		    (!t->leaf[i].has_subleaves || t->leaf[i].subleaf == sub))
			return &t->leaf[i];
	return NULL;
}

static struct cpuid_leaf *find_mutable(struct cpuid_table *t, uint32_t leaf, uint32_t sub)
{
	return (struct cpuid_leaf *)find(t, leaf, sub);
}

static struct cpuid_leaf *add(struct cpuid_table *t, uint32_t leaf, uint32_t sub, bool has_sub)
{
	struct cpuid_leaf *l = &t->leaf[t->count];

	if (t->count == CPUID_MAX_LEAVES) /* more caches than any processor has: drop them */
		return &t->leaf[t->count - 1];
	t->count++;
	*l = (struct cpuid_leaf){.leaf = leaf, .subleaf = sub, .has_subleaves = has_sub};
	return l;
}

static struct cpuid_leaf *add_host(struct cpuid_table *t, uint32_t leaf, uint32_t sub, bool has_sub)
{
	struct cpuid_leaf *l = add(t, leaf, sub, has_sub);

	__cpuid_count(leaf, sub, l->eax, l->ebx, l->ecx, l->edx);
	return l;
}

/* --- time --- */
static uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct tsc_sample {
	uint64_t tsc, ns;
};

/* TSC and time at the same moment: the tightest of a few tries. */
static struct tsc_sample sample(void)
{
	uint64_t best = UINT64_MAX;
	struct tsc_sample s = {0};

	for (int i = 0; i < 8; i++) {
		uint64_t before = rdtsc(), t = now_ns(), after = rdtsc();

		if (after - before >= best)
			continue;
		best = after - before;
		s = (struct tsc_sample){before + best / 2, t};
	}
	return s;
}

/* By what passed since begin, or what will have passed when that is long enough. */
static uint64_t tsc_hz_measured(struct tsc_sample begin)
{
	struct tsc_sample end;

	while (now_ns() - begin.ns < MEASURE_NS)
		;
	end = sample();
	return mul_div(end.tsc - begin.tsc, 1000000000u, end.ns - begin.ns);
}

/* --- features --- */
static uint64_t host_xcr0(void)
{
	uint32_t a, b, c, d, lo, hi;

	__cpuid(1, a, b, c, d);
	if (!(c & B(27)))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

static void drop(struct cpuid_table *t, const struct feature_rule *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct cpuid_leaf *l = find_mutable(t, r[i].leaf, r[i].subleaf);

		if (l)
			*leaf_reg(l, r[i].reg) &= ~r[i].from_host;
	}
}

/* Clears what no rule names in the feature leaves, and adds what the engine makes. */
static void cut_to_jit(struct cpuid_table *t)
{

	for (unsigned i = 0; i < ARRAY_SIZE(jit_rules); i++) {
		const struct feature_rule *r = &jit_rules[i];
		struct cpuid_leaf *l = find_mutable(t, r->leaf, r->subleaf);

		if (!l)
			continue;
		*leaf_reg(l, r->reg) = (*leaf_reg(l, r->reg) & r->from_host) | r->always;
	}
}

/* Mitigations by the guest have no effect in translation (docs/jit.md). */
static void spare_mitigations(struct cpuid_table *t)
{
	if (cpuid_is_amd(t)) {
		find_mutable(t, 0x80000008, 0)->ebx |= B(29);        /* BTC_NO */
		find_mutable(t, 0x80000021, 0)->eax |= B(8) | B(29); /* automatic IBRS, SRSO_NO */
		find_mutable(t, 0x80000021, 0)->ecx |= B(1) | B(2);  /* TSA_SQ_NO, TSA_L1_NO */
	} else {
		find_mutable(t, 7, 0)->edx |= B(26) | B(29); /* IBRS, ARCH_CAPABILITIES */
	}
}

/* Five-level paging costs a kernel a step of each page walk, so the JIT, which could always, offers
 * it when asked. Linux takes the width of canonical addresses from leaf 0x80000008, which must
 * agree. */
static bool has_la57(struct cpuid_table *t, const struct cpuid_opts *o)
{
	return o->jit ? o->model == CPUID_MODEL_HOST_LA57 : find_mutable(t, 7, 0)->ecx & B(16);
}

static void add_features(struct cpuid_table *t, const struct cpuid_opts *o)
{
	struct cpuid_leaf *l = add_host(t, 1, 0, false);

	l->ebx = (l->ebx & 0x0000ff00) | (o->cpus & 0xff) << 16; /* CLFLUSH size, CPUs */
	l = add_host(t, 7, 0, true);
	if (l->eax >= 1) {
		l->eax = 1;
		l = add_host(t, 7, 1, true);
		l->ebx = l->ecx = l->edx = 0;
	}
	add_host(t, 0x80000001, 0, false)->ebx = 0;
	l = add_host(t, 0x80000008, 0, false);
	if ((l->eax & 0xff) > PHYS_BITS_MAX)
		l->eax = (l->eax & ~0xffu) | PHYS_BITS_MAX;
	l->eax = (l->eax & 0xff) | (has_la57(t, o) ? 57u : 48u) << 8;
	l->ecx = o->cpus - 1;
	l->edx = 0;
	if (cpuid_is_amd(t)) {
		l = add_host(t, 0x80000021, 0, false);
		l->ebx = l->ecx = l->edx = 0;
	}
	if (o->jit)
		cut_to_jit(t);
	if (has_la57(t, o))
		find_mutable(t, 7, 0)->ecx |= B(16);
}

static void fix_features(struct cpuid_table *t, const struct cpuid_opts *o)
{
	struct cpuid_leaf *l = find_mutable(t, 1, 0), *ext = find_mutable(t, 0x80000001, 0);
	struct cpuid_leaf *features = find_mutable(t, 7, 0);

	l->ecx |= B(31);
	l->ecx = o->have_x2apic ? l->ecx | B(21) : l->ecx & ~B(21);
	l->ecx &= ~B(27);       /* OSXSAVE follows CR4 */
	features->ecx &= ~B(4); /* so does OSPKE */
	if (!(t->xcr0_mask & XCR0_PKRU))
		features->ecx &= ~B(3);
	l->edx = o->cpus > 1 ? l->edx | B(28) : l->edx & ~B(28);
	if (!t->xcr0_mask)
		l->ecx &= ~B(26);
	if (!(t->xcr0_mask & XCR0_AVX))
		drop(t, need_avx, ARRAY_SIZE(need_avx));
	if (!(t->xcr0_mask & XCR0_AVX512))
		drop(t, need_avx512, ARRAY_SIZE(need_avx512));
	if (cpuid_is_amd(t)) { /* AMD repeats leaf 1's features here; CMP_LEGACY */
		ext->edx |= l->edx & 0x0183f3ff;
		ext->ecx = o->cpus > 1 ? ext->ecx | B(1) : ext->ecx & ~B(1);
	}
}

/* --- XSAVE (leaf 0xd) --- */
/* The JIT keeps PKRU itself; hosts that have none leave room behind what they have. */
static void add_pkru(struct cpuid_table *t, uint32_t size)
{
	struct cpuid_leaf *l = add_host(t, 0xd, PKRU_COMPONENT, true);

	if (l->eax)
		return;
	l->eax = 8;
	l->ebx = size > PKRU_OFFSET_MIN ? (uint32_t)align_up(size, 64) : PKRU_OFFSET_MIN;
	l->ecx = l->edx = 0;
}

static void add_xsave(struct cpuid_table *t, const struct cpuid_opts *o)
{
	struct cpuid_leaf *l;
	uint32_t size = 576;

	t->xcr0_mask = host_xcr0();
	if (o->jit)
		t->xcr0_mask &= XCR0_CARRIED;
	if ((t->xcr0_mask & XCR0_AVX512) != XCR0_AVX512)
		t->xcr0_mask &= ~(uint64_t)XCR0_AVX512;
	if (!t->xcr0_mask)
		return;
	if (o->jit)
		t->xcr0_mask |= XCR0_PKRU;
	l = add(t, 0xd, 0, true);
	l->eax = (uint32_t)t->xcr0_mask;
	l->edx = (uint32_t)(t->xcr0_mask >> 32);
	l = add(t, 0xd, 1, true);
	l->eax = 0xf; /* XSAVEOPT XSAVEC XGETBV1 XSAVES, whose XSS is 0 */
	if (!o->jit)
		__cpuid_count(0xd, 1, l->eax, l->ebx, l->ecx, l->edx);
	for (uint32_t i = 2; i < 63; i++) {
		if (!(t->xcr0_mask >> i & 1))
			continue;
		if (i == PKRU_COMPONENT && o->jit) {
			add_pkru(t, size);
			l = find_mutable(t, 0xd, i);
		} else {
			l = add_host(t, 0xd, i, true);
		}
		if (l->ebx + l->eax > size)
			size = l->ebx + l->eax;
	}
	find_mutable(t, 0xd, 0)->ecx = size;
}

/* Size of the area for components; compacted: as XSAVEC lays it out (13.4.3). */
static uint32_t xsave_size(const struct cpuid_table *t, uint64_t components, bool compacted)
{
	uint32_t size = 576;

	for (uint32_t i = 2; i < 63; i++) {
		const struct cpuid_leaf *l;

		if (!(components >> i & 1) || !(l = find(t, 0xd, i)))
			continue;
		if (compacted)
			size = (l->ecx & 2 ? (uint32_t)align_up(size, 64) : size) + l->eax;
		else if (l->ebx + l->eax > size)
			size = l->ebx + l->eax;
	}
	return size;
}

/* --- topology and caches: one package, one thread per core --- */
static uint32_t log2_up(uint32_t n)
{
	uint32_t bits = 0;

	while ((1u << bits) < n)
		bits++;
	return bits;
}

static void add_topology(struct cpuid_table *t, uint32_t leaf, unsigned cpus)
{
	struct cpuid_leaf *l = add(t, leaf, 0, true);

	l->ebx = 1;
	l->ecx = 1 << 8; /* SMT level */
	l = add(t, leaf, 1, true);
	l->eax = log2_up(cpus);
	l->ebx = cpus;
	l->ecx = 2 << 8 | 1; /* core level */
	l = add(t, leaf, 2, true);
	l->ecx = 2;
}

/* Intel's leaf 4 and AMD's 0x8000001d have the same form. */
static void add_caches(struct cpuid_table *t, uint32_t leaf, unsigned cpus)
{
	for (uint32_t i = 0; i < 8; i++) {
		struct cpuid_leaf *l = add_host(t, leaf, i, true);
		uint32_t level = l->eax >> 5 & 7, sharing = level >= 3 ? cpus - 1 : 0;

		if (!(l->eax & 0x1f)) {
			l->eax = l->ebx = l->ecx = l->edx = 0;
			return;
		}
		l->eax = (l->eax & 0x3fff) | sharing << 14;
		if (leaf == 4)
			l->eax |= (cpus - 1) << 26;
	}
}

/* --- assembly --- */
static void add_basic(struct cpuid_table *t, const struct cpuid_opts *o)
{
	if (!cpuid_is_amd(t)) {
		add_host(t, 2, 0, false);
		add_caches(t, 4, o->cpus);
	}
	add(t, 6, 0, false)->eax = B(2); /* the APIC timer never stops */
	add_topology(t, 0xb, o->cpus);
}

static void add_extended(struct cpuid_table *t, const struct cpuid_opts *o)
{
	struct cpuid_leaf *l;
	uint32_t host_max;

	l = add_host(t, 0x80000000, 0, false);
	host_max = l->eax;
	l->eax = cpuid_is_amd(t) ? MAX_EXTENDED : 0x80000008;
	for (uint32_t leaf = 0x80000002; leaf <= 0x80000006; leaf++)
		add_host(t, leaf, 0, false);
	add(t, 0x80000007, 0, false)->edx = B(8); /* invariant TSC */
	if (!cpuid_is_amd(t))
		return;
	if (host_max >= 0x8000001a) {
		add_host(t, 0x80000019, 0, false);
		add_host(t, 0x8000001a, 0, false);
	}
	if (host_max >= 0x8000001e) {
		add_caches(t, 0x8000001d, o->cpus);
		add(t, 0x8000001e, 0, false); /* filled at the query */
	}
}

static void add_kvm(struct cpuid_table *t, const struct cpuid_opts *o)
{
	struct cpuid_leaf *l = add(t, KVM_BASE, 0, false);

	l->eax = KVM_MAX;
	memcpy(&l->ebx, "KVMK", 4);
	memcpy(&l->ecx, "VMKV", 4);
	memcpy(&l->edx, "M\0\0", 4);
	add(t, KVM_BASE + 1, 0, false)->eax =
		KVM_NOP_IO_DELAY | KVM_CLOCKSOURCE2 | KVM_CLOCK_STABLE | (o->jit ? KVM_BY_JIT : 0);
}

static void add_frequencies(struct cpuid_table *t, uint64_t apic_hz)
{
	struct cpuid_leaf *l = add(t, 0x15, 0, false);

	l->eax = (uint32_t)(apic_hz / 1000); /* the crystal is the APIC timer's input */
	l->ebx = (uint32_t)(t->tsc_hz / 1000);
	l->ecx = (uint32_t)apic_hz;
	l = add(t, 0x16, 0, false);
	l->eax = l->ebx = (uint32_t)(t->tsc_hz / 1000000);
	l->ecx = 100;
	l = add(t, KVM_MAX, 0, false);
	l->eax = (uint32_t)(t->tsc_hz / 1000);
	l->ebx = (uint32_t)(apic_hz / 1000);
}

int cpuid_host(struct cpuid_table *t, const struct cpuid_opts *o, struct err *e)
{
	struct tsc_sample begin = sample();
	int r;

	if (o->cpus < 1 || o->cpus > 255)
		return err_set(e, EINVAL, "%u CPUs: 1 to 255 are possible", o->cpus);
	if ((unsigned)__get_cpuid_max(0, NULL) < 0xd ||
	    (unsigned)__get_cpuid_max(0x80000000, NULL) < 0x80000008)
		return err_set(e, ENOTSUP, "this processor is too old: no CPUID leaf 0xd");
	memset(t, 0, sizeof *t);
	add_host(t, 0, 0, false)->eax = MAX_BASIC;
	add_xsave(t, o);
	add_features(t, o);
	fix_features(t, o);
	add_basic(t, o);
	add_extended(t, o);
	add_kvm(t, o);
	r = cpuid_cut_to_model(t, o->model, e);
	if (r < 0)
		return r;
	if (o->jit)
		spare_mitigations(t);
	/* Last: reading leaves is slow in a VM, and is part of the time to measure over. */
	t->tsc_hz = o->tsc_hz ? o->tsc_hz : tsc_hz_measured(begin);
	add_frequencies(t, o->apic_hz ? o->apic_hz : APIC_HZ_DEFAULT);
	return 0;
}

bool cpuid_has(const struct cpuid_table *t, uint32_t leaf, uint32_t sub, int reg, int bit)
{
	struct cpuid_leaf *l = (struct cpuid_leaf *)find(t, leaf, sub);

	return l && (*leaf_reg(l, reg) >> bit & 1);
}

/* --- the query --- */
/* Bits that follow from the vCPU. */
static void fill_dynamic(const struct cpuid_table *t, const struct x86_state *s, uint32_t apic_id,
			 uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	switch (leaf) {
	case 1:
		out[1] |= apic_id << 24;
		if (s->cr4 & CR4_OSXSAVE)
			out[2] |= B(27);
		if (!(s->apic_base & BIT(11)))
			out[3] &= ~B(9);
		break;
	case 7:
		if (sub == 0 && (s->cr4 & CR4_PKE))
			out[2] |= B(4);
		break;
	case 0xb:
		if (sub > 2)
			out[2] = sub & 0xff;
		out[3] = apic_id;
		break;
	case 0xd:
		if (!t->xcr0_mask)
			break;
		if (sub == 0)
			out[1] = xsave_size(t, s->xcr0, false);
		else if (sub == 1)
			out[1] = xsave_size(t, s->xcr0 | s->xss, true);
		break;
	case 0x8000001e:
		out[0] = apic_id;
		out[1] = apic_id & 0xff;
		break;
	}
}

/* Intel answers leaves beyond the last with the last basic one, AMD with zeros. */
static uint32_t clamp(const struct cpuid_table *t, uint32_t leaf)
{
	uint32_t max_ext = cpuid_is_amd(t) ? MAX_EXTENDED : 0x80000008;

	if (cpuid_is_amd(t) || leaf <= MAX_BASIC || (leaf >= 0x80000000 && leaf <= max_ext) ||
	    (leaf >= KVM_BASE && leaf < KVM_BASE + 0x100))
		return leaf;
	return MAX_BASIC;
}

void cpuid_query(const struct cpuid_table *t, const struct x86_state *s, uint32_t apic_id,
		 uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	const struct cpuid_leaf *l;

	leaf = clamp(t, leaf);
	l = find(t, leaf, subleaf);
	memset(out, 0, 4 * sizeof out[0]);
	if (l) {
		out[0] = l->eax;
		out[1] = l->ebx;
		out[2] = l->ecx;
		out[3] = l->edx;
	}
	if (l || leaf == 0xb)
		fill_dynamic(t, s, apic_id, leaf, subleaf, out);
}
