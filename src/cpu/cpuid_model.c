#include "cpu/cpuid_model.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/x86_state.h"

/* A feature that the level (enum cpuid_model) has, and all above it; CPUID_MODEL_V1 includes
 * what a 64-bit kernel takes for granted. */
struct feature {
	uint32_t leaf;
	uint8_t reg, bit, level;
	const char *name;
};

static const struct feature features[] = {
	{1, CPUID_EDX, 0, CPUID_MODEL_V1, "fpu"},
	{1, CPUID_EDX, 2, CPUID_MODEL_V1, "de"},
	{1, CPUID_EDX, 3, CPUID_MODEL_V1, "pse"},
	{1, CPUID_EDX, 4, CPUID_MODEL_V1, "tsc"},
	{1, CPUID_EDX, 5, CPUID_MODEL_V1, "msr"},
	{1, CPUID_EDX, 6, CPUID_MODEL_V1, "pae"},
	{1, CPUID_EDX, 7, CPUID_MODEL_V1, "mce"},
	{1, CPUID_EDX, 8, CPUID_MODEL_V1, "cx8"},
	{1, CPUID_EDX, 9, CPUID_MODEL_V1, "apic"},
	{1, CPUID_EDX, 11, CPUID_MODEL_V1, "sep"},
	{1, CPUID_EDX, 12, CPUID_MODEL_V1, "mtrr"},
	{1, CPUID_EDX, 13, CPUID_MODEL_V1, "pge"},
	{1, CPUID_EDX, 14, CPUID_MODEL_V1, "mca"},
	{1, CPUID_EDX, 15, CPUID_MODEL_V1, "cmov"},
	{1, CPUID_EDX, 16, CPUID_MODEL_V1, "pat"},
	{1, CPUID_EDX, 17, CPUID_MODEL_V1, "pse36"},
	{1, CPUID_EDX, 19, CPUID_MODEL_V1, "clflush"},
	{1, CPUID_EDX, 23, CPUID_MODEL_V1, "mmx"},
	{1, CPUID_EDX, 24, CPUID_MODEL_V1, "fxsr"},
	{1, CPUID_EDX, 25, CPUID_MODEL_V1, "sse"},
	{1, CPUID_EDX, 26, CPUID_MODEL_V1, "sse2"},
	{0x80000001, CPUID_EDX, 11, CPUID_MODEL_V1, "syscall"},
	{0x80000001, CPUID_EDX, 20, CPUID_MODEL_V1, "nx"},
	{0x80000001, CPUID_EDX, 29, CPUID_MODEL_V1, "lm"},
	{1, CPUID_ECX, 0, CPUID_MODEL_V2, "sse3"},
	{1, CPUID_ECX, 9, CPUID_MODEL_V2, "ssse3"},
	{1, CPUID_ECX, 13, CPUID_MODEL_V2, "cx16"},
	{1, CPUID_ECX, 19, CPUID_MODEL_V2, "sse4.1"},
	{1, CPUID_ECX, 20, CPUID_MODEL_V2, "sse4.2"},
	{1, CPUID_ECX, 23, CPUID_MODEL_V2, "popcnt"},
	{0x80000001, CPUID_ECX, 0, CPUID_MODEL_V2, "lahf"},
	{1, CPUID_ECX, 12, CPUID_MODEL_V3, "fma"},
	{1, CPUID_ECX, 22, CPUID_MODEL_V3, "movbe"},
	{1, CPUID_ECX, 26, CPUID_MODEL_V3, "xsave"},
	{1, CPUID_ECX, 28, CPUID_MODEL_V3, "avx"},
	{1, CPUID_ECX, 29, CPUID_MODEL_V3, "f16c"},
	{7, CPUID_EBX, 3, CPUID_MODEL_V3, "bmi1"},
	{7, CPUID_EBX, 5, CPUID_MODEL_V3, "avx2"},
	{7, CPUID_EBX, 8, CPUID_MODEL_V3, "bmi2"},
	{0x80000001, CPUID_ECX, 5, CPUID_MODEL_V3, "lzcnt"},
	{7, CPUID_EBX, 16, CPUID_MODEL_V4, "avx512f"},
	{7, CPUID_EBX, 17, CPUID_MODEL_V4, "avx512dq"},
	{7, CPUID_EBX, 28, CPUID_MODEL_V4, "avx512cd"},
	{7, CPUID_EBX, 30, CPUID_MODEL_V4, "avx512bw"},
	{7, CPUID_EBX, 31, CPUID_MODEL_V4, "avx512vl"},
};

/* Registers that list features, and which of them are the platform's, not the model's. */
static const struct feature_reg {
	uint32_t leaf, subleaf;
	uint8_t reg;
	uint32_t platform;
} feature_regs[] = {
	{1, 0, CPUID_ECX, 1u << 21 | 1u << 24 | 1u << 31}, /* x2APIC, TSC deadline, hypervisor */
	{1, 0, CPUID_EDX, 1u << 28},                       /* several vCPUs */
	{7, 0, CPUID_EAX, 0},
	{7, 0, CPUID_EBX, 0},
	{7, 0, CPUID_ECX, 0},
	{7, 0, CPUID_EDX, 0},
	{7, 1, CPUID_EAX, 0},
	{0xd, 1, CPUID_EAX, 0},
	{0x80000001, 0, CPUID_ECX, 1u << 1},    /* several vCPUs, on AMD */
	{0x80000001, 0, CPUID_EDX, 0x0183f3ff}, /* those of leaf 1 again, on AMD */
	{0x80000008, 0, CPUID_EBX, 0},
	{0x80000021, 0, CPUID_EAX, 0},
};

static uint32_t *reg_of(struct cpuid_leaf *l, unsigned reg)
{
	switch (reg) {
	case CPUID_EAX: return &l->eax;
	case CPUID_EBX: return &l->ebx;
	case CPUID_ECX: return &l->ecx;
	default: return &l->edx;
	}
}

static int check_complete(const struct cpuid_table *t, enum cpuid_model m, struct err *e)
{
	char lacks[160] = "";
	unsigned best = CPUID_MODEL_V4, at = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];

		if (cpuid_has(t, f->leaf, 0, f->reg, f->bit))
			continue;
		if (f->level <= best)
			best = f->level - 1u;
		if (f->level <= m && at + 16 < sizeof lacks)
			at += (unsigned)snprintf(lacks + at, sizeof lacks - at, "%s%s",
						 at ? ", " : "", f->name);
	}
	if (!at)
		return 0;
	if (best == CPUID_MODEL_HOST)
		return err_set(e, ENOTSUP, "this host lacks %s: use the model host", lacks);
	return err_set(e, ENOTSUP,
		       "this host lacks %s: use a model up to x86-64-v%u, or the model host", lacks,
		       best);
}

static void cut_features(struct cpuid_table *t, enum cpuid_model m, const struct feature_reg *r)
{
	uint32_t keep = r->platform;

	for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
		if (features[i].level <= m && features[i].leaf == r->leaf &&
		    features[i].reg == r->reg && r->subleaf == 0)
			keep |= 1u << features[i].bit;
	for (unsigned i = 0; i < t->count; i++)
		if (t->leaf[i].leaf == r->leaf && t->leaf[i].subleaf == r->subleaf)
			*reg_of(&t->leaf[i], r->reg) &= keep;
}

/* Leaf 0xd for those components of the XSAVE area that are left. */
static void cut_xsave(struct cpuid_table *t, enum cpuid_model m)
{
	uint64_t mask = m >= CPUID_MODEL_V4   ? XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512
			: m >= CPUID_MODEL_V3 ? XCR0_X87 | XCR0_SSE | XCR0_AVX
					      : 0;
	struct cpuid_leaf *whole = NULL;
	uint32_t size = 576;

	t->xcr0_mask &= mask;
	for (unsigned i = 0; i < t->count; i++) {
		struct cpuid_leaf *l = &t->leaf[i];

		if (l->leaf != 0xd)
			continue;
		if (l->subleaf == 0) {
			whole = l;
		} else if (l->subleaf == 1 || !(mask >> l->subleaf & 1)) {
			l->eax = l->ebx = l->ecx = l->edx = 0;
		} else if (l->eax + l->ebx > size) {
			size = l->eax + l->ebx;
		}
	}
	if (!whole)
		return;
	whole->eax = (uint32_t)t->xcr0_mask;
	whole->edx = 0;
	whole->ebx = whole->ecx = t->xcr0_mask ? size : 0;
}

/* No level has five-level paging: linear addresses are 48 bits wide. */
static void cut_la57(struct cpuid_table *t)
{
	for (unsigned i = 0; i < t->count; i++)
		if (t->leaf[i].leaf == 0x80000008)
			t->leaf[i].eax = (t->leaf[i].eax & ~0xff00u) | 48 << 8;
}

int cpuid_cut_to_model(struct cpuid_table *t, enum cpuid_model m, struct err *e)
{
	int r;

	if (m == CPUID_MODEL_HOST)
		return 0;
	if (m == CPUID_MODEL_HOST_LA57)
		return cpuid_has(t, 7, 0, CPUID_ECX, 16)
			       ? 0
			       : err_set(e, ENOTSUP,
					 "CPU model host+la57: this processor has no five-level "
					 "paging; the JIT engine has it on any");
	r = check_complete(t, m, e);
	if (r < 0)
		return err_wrap(e, "CPU model x86-64-v%u", m);
	for (unsigned i = 0; i < ARRAY_SIZE(feature_regs); i++)
		cut_features(t, m, &feature_regs[i]);
	cut_xsave(t, m);
	cut_la57(t);
	return 0;
}
