/* rules: how each instruction is treated, by mnemonic; and which instruction sets the guest
 * has. What stands in no row is copied. */
#include "cpu/jit/insn.h"

#define M(name)              [ZYDIS_MNEMONIC_##name]
#define HELP(name, h)        M(name) = {.kind = RULE_HELPER, .helper = h_##h}
#define HELP_IMM(name, h, i) M(name) = {.kind = RULE_HELPER, .helper = h_##h, .imm = (i)}
#define STRING(name, h)      M(name) = {.kind = RULE_STRING, .helper = h_##h}
#define UD(name)             M(name) = {.kind = RULE_UD}
#define NOP_(name)           M(name) = {.kind = RULE_NOP}
#define JCC(name, c)         M(name) = {.kind = RULE_JCC, .cc = (c)}
#define ONLY(name, k)        M(name) = {.kind = (k)}

static const struct rule rules[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
	/* control flow */
	ONLY(JMP, RULE_JMP),
	ONLY(CALL, RULE_CALL),
	ONLY(RET, RULE_RET),
	JCC(JO, 0),
	JCC(JNO, 1),
	JCC(JB, 2),
	JCC(JNB, 3),
	JCC(JZ, 4),
	JCC(JNZ, 5),
	JCC(JBE, 6),
	JCC(JNBE, 7),
	JCC(JS, 8),
	JCC(JNS, 9),
	JCC(JP, 10),
	JCC(JNP, 11),
	JCC(JL, 12),
	JCC(JNL, 13),
	JCC(JLE, 14),
	JCC(JNLE, 15),
	ONLY(LOOP, RULE_LOOP),
	ONLY(LOOPE, RULE_LOOP),
	ONLY(LOOPNE, RULE_LOOP),
	ONLY(JCXZ, RULE_LOOP),
	ONLY(JECXZ, RULE_LOOP),
	ONLY(JRCXZ, RULE_LOOP),

	/* moves that touch the stack or need an address */
	ONLY(MOV, RULE_MOV),
	ONLY(PUSH, RULE_PUSH),
	ONLY(POP, RULE_POP),
	ONLY(LEA, RULE_LEA),
	ONLY(XLAT, RULE_XLAT),
	ONLY(LEAVE, RULE_LEAVE),
	ONLY(BT, RULE_BT),
	ONLY(BTS, RULE_BT),
	ONLY(BTR, RULE_BT),
	ONLY(BTC, RULE_BT),

	ONLY(PAUSE, RULE_PAUSE),

	/* no operation: their memory operand is not accessed */
	ONLY(NOP, RULE_NOP),
	NOP_(PREFETCH),
	NOP_(PREFETCHNTA),
	NOP_(PREFETCHT0),
	NOP_(PREFETCHT1),
	NOP_(PREFETCHT2),
	NOP_(PREFETCHW),
	NOP_(PREFETCHWT1),
	NOP_(CLDEMOTE),
	NOP_(ENDBR64),
	NOP_(ENDBR32),
	NOP_(RDSSPD),
	NOP_(RDSSPQ),

	/* strings and ports */
	STRING(MOVSB, movs),
	STRING(MOVSW, movs),
	STRING(MOVSQ, movs),
	STRING(STOSB, stos),
	STRING(STOSW, stos),
	STRING(STOSD, stos),
	STRING(STOSQ, stos),
	STRING(LODSB, lods),
	STRING(LODSW, lods),
	STRING(LODSD, lods),
	STRING(LODSQ, lods),
	STRING(SCASB, scas),
	STRING(SCASW, scas),
	STRING(SCASD, scas),
	STRING(SCASQ, scas),
	STRING(CMPSB, cmps),
	STRING(CMPSW, cmps),
	STRING(CMPSQ, cmps),
	STRING(INSB, ins),
	STRING(INSW, ins),
	STRING(INSD, ins),
	STRING(OUTSB, outs),
	STRING(OUTSW, outs),
	STRING(OUTSD, outs),
	M(MOVSD) = {.kind = RULE_STRING, .helper = h_movs}, /* the SSE2 ones: jit_rule */
	M(CMPSD) = {.kind = RULE_STRING, .helper = h_cmps},
	M(IN) = {.kind = RULE_IO, .helper = h_in},
	M(OUT) = {.kind = RULE_IO, .helper = h_out},

	/* transfers between rings and segments */
	M(INT) = {.kind = RULE_INT, .helper = h_int},
	HELP(INT3, int3),
	HELP(INT1, int1),
	HELP(INTO, into),
	HELP(IRET, iret),
	HELP(IRETD, iret),
	HELP(IRETQ, iret),
	HELP(SYSCALL, syscall),
	HELP(SYSRET, sysret),
	HELP(SYSENTER, sysenter),
	HELP(SYSEXIT, sysexit),
	HELP(HLT, hlt),

	/* segments and descriptors */
	HELP(LAR, lar),
	HELP(LSL, lsl),
	HELP(VERR, verr),
	HELP(VERW, verw),
	HELP(ARPL, arpl),
	HELP(LLDT, lldt),
	HELP(LTR, ltr),
	HELP(SLDT, sldt),
	HELP(STR, str),
	HELP(LGDT, lgdt),
	HELP(LIDT, lidt),
	HELP(SGDT, sgdt),
	HELP(SIDT, sidt),
	HELP(SWAPGS, swapgs),
	HELP(RDFSBASE, rdfsbase),
	HELP(RDGSBASE, rdgsbase),
	HELP(WRFSBASE, wrfsbase),
	HELP(WRGSBASE, wrgsbase),
	HELP_IMM(LES, load_far_ptr, X86_ES),
	HELP_IMM(LDS, load_far_ptr, X86_DS),
	HELP_IMM(LSS, load_far_ptr, X86_SS),
	HELP_IMM(LFS, load_far_ptr, X86_FS),
	HELP_IMM(LGS, load_far_ptr, X86_GS),

	/* system */
	HELP(CLTS, clts),
	HELP(LMSW, lmsw),
	HELP(SMSW, smsw),
	HELP(RDMSR, rdmsr),
	HELP(WRMSR, wrmsr),
	HELP(CPUID, cpuid),
	HELP(RDTSC, rdtsc),
	HELP(RDTSCP, rdtscp),
	HELP(RDPMC, rdpmc),
	HELP(RDPID, rdpid),
	HELP(XGETBV, xgetbv),
	HELP(XSETBV, xsetbv),
	HELP(INVLPG, invlpg),
	HELP(INVPCID, invpcid),
	HELP(INVD, invd),
	HELP(WBINVD, wbinvd),
	ONLY(CLI, RULE_CLI),
	ONLY(CLD, RULE_CLD),
	ONLY(STD, RULE_STD),
	ONLY(STI, RULE_STI),
	HELP(CLAC, clac),
	HELP(STAC, stac),
	HELP(PUSHF, pushf),
	HELP(PUSHFD, pushf),
	HELP(PUSHFQ, pushf),
	HELP(POPF, popf),
	HELP(POPFD, popf),
	HELP(POPFQ, popf),
	HELP(RDPKRU, rdpkru),
	HELP(WRPKRU, wrpkru),
	HELP(VMCALL, vmmcall),
	HELP(VMMCALL, vmmcall),

	/* floating-point state */
	HELP(FXSAVE, fxsave),
	HELP(FXSAVE64, fxsave),
	HELP(FXRSTOR, fxrstor),
	HELP(FXRSTOR64, fxrstor),
	HELP_IMM(XSAVE, xsave, 0),
	HELP_IMM(XSAVE64, xsave, 0),
	HELP_IMM(XSAVEOPT, xsave, 1),
	HELP_IMM(XSAVEOPT64, xsave, 1),
	HELP_IMM(XSAVEC, xsave, 2),
	HELP_IMM(XSAVEC64, xsave, 2),
	HELP_IMM(XSAVES, xsave, 3),
	HELP_IMM(XSAVES64, xsave, 3),
	HELP_IMM(XRSTOR, xrstor, 0),
	HELP_IMM(XRSTOR64, xrstor, 0),
	HELP_IMM(XRSTORS, xrstor, 1),
	HELP_IMM(XRSTORS64, xrstor, 1),
	HELP(FLDENV, fldenv),
	HELP(FNSTENV, fnstenv),
	HELP(FRSTOR, frstor),
	HELP(FNSAVE, fnsave),
	HELP(MASKMOVQ, maskmov),
	HELP(MASKMOVDQU, maskmov),
	HELP(VMASKMOVDQU, maskmov),
	HELP(VGATHERDPD, gather),
	HELP(VGATHERDPS, gather),
	HELP(VGATHERQPD, gather),
	HELP(VGATHERQPS, gather),
	HELP(VPGATHERDD, gather),
	HELP(VPGATHERDQ, gather),
	HELP(VPGATHERQD, gather),
	HELP(VPGATHERQQ, gather),
	HELP(VSCATTERDPD, gather),
	HELP(VSCATTERDPS, gather),
	HELP(VSCATTERQPD, gather),
	HELP(VSCATTERQPS, gather),
	HELP(VPSCATTERDD, gather),
	HELP(VPSCATTERDQ, gather),
	HELP(VPSCATTERQD, gather),
	HELP(VPSCATTERQQ, gather),

	/* what 64-bit mode lost */
	HELP(DAA, daa),
	HELP(DAS, das),
	HELP(AAA, aaa),
	HELP(AAS, aas),
	HELP(AAM, aam),
	HELP(AAD, aad),
	HELP(SALC, salc),
	HELP(BOUND, bound),
	HELP(PUSHA, pusha),
	HELP(PUSHAD, pusha),
	HELP(POPA, popa),
	HELP(POPAD, popa),
	HELP(ENTER, enter),

	/* never offered, or undefined by design */
	UD(UD0),
	UD(UD1),
	UD(UD2),
	UD(RSM),
	UD(GETSEC),
	UD(MONITOR),
	UD(MWAIT),
	UD(MONITORX),
	UD(MWAITX),
};

#undef M

static const struct rule copy_rule = {.kind = RULE_COPY};
static const struct rule far_jmp = {
	.kind = RULE_FAR, .helper = h_jmp_far, .helper2 = h_jmp_far_mem};
static const struct rule far_call = {
	.kind = RULE_FAR, .helper = h_call_far, .helper2 = h_call_far_mem};
static const struct rule far_ret = {.kind = RULE_HELPER, .helper = h_ret_far};

const struct rule *jit_rule(const ZydisDecodedInstruction *z)
{
	if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && z->mnemonic == ZYDIS_MNEMONIC_JMP)
		return &far_jmp;
	if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && z->mnemonic == ZYDIS_MNEMONIC_CALL)
		return &far_call;
	if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && z->mnemonic == ZYDIS_MNEMONIC_RET)
		return &far_ret;
	if ((z->mnemonic == ZYDIS_MNEMONIC_MOVSD || z->mnemonic == ZYDIS_MNEMONIC_CMPSD) &&
	    z->meta.isa_ext == ZYDIS_ISA_EXT_SSE2)
		return &copy_rule;
	if (z->mnemonic == ZYDIS_MNEMONIC_PAUSE && z->raw.rex.B) /* AMD's do XCHG R8, RAX */
		return &copy_rule;
	return &rules[z->mnemonic];
}

/* An instruction set the guest has if its CPUID shows the bit (leaf, subleaf, register). */
static const struct isa_bit {
	uint16_t first, last; /* ZYDIS_ISA_SET_* */
	uint32_t leaf;
	uint8_t reg, bit; /* 0 eax .. 3 edx */
} isa_bits[] = {
#define ISA(name, leaf, reg, bit)                                                                  \
	{                                                                                          \
		ZYDIS_ISA_SET_##name, ZYDIS_ISA_SET_##name, leaf, reg, bit                         \
	}
#define ISA_RANGE(a, b, leaf, reg, bit)                                                            \
	{                                                                                          \
		ZYDIS_ISA_SET_##a, ZYDIS_ISA_SET_##b, leaf, reg, bit                               \
	}
	ISA(ADOX_ADCX, 7, 1, 19),
	ISA(AES, 1, 2, 25),
	ISA(AVX, 1, 2, 28),
	ISA(AVX2, 7, 1, 5),
	ISA(AVX2GATHER, 7, 1, 5),
	ISA(AVXAES, 1, 2, 25),
	ISA(AVX_GFNI, 7, 2, 8),
	ISA(BMI1, 7, 1, 3),
	ISA(BMI2, 7, 1, 8),
	ISA(CLFLUSHOPT, 7, 1, 23),
	ISA(CLFSH, 1, 3, 19),
	ISA(CLWB, 7, 1, 24),
	ISA(CMPXCHG16B, 1, 2, 13),
	ISA(F16C, 1, 2, 29),
	ISA(FMA, 1, 2, 12),
	ISA(GFNI, 7, 2, 8),
	ISA(INVPCID, 7, 1, 10),
	ISA(LZCNT, 0x80000001, 2, 5),
	ISA(MOVBE, 1, 2, 22),
	ISA(PCLMULQDQ, 1, 2, 1),
	ISA(POPCNT, 1, 2, 23),
	ISA(RDPID, 7, 2, 22),
	ISA(RDRAND, 1, 2, 30),
	ISA(RDSEED, 7, 1, 18),
	ISA(RDTSCP, 0x80000001, 3, 27),
	ISA(RDWRFSGS, 7, 1, 0),
	ISA(SHA, 7, 1, 29),
	ISA(SMAP, 7, 1, 20),
	ISA(SSE3, 1, 2, 0),
	ISA(SSE3X87, 1, 2, 0),
	ISA(SSE4, 1, 2, 19),
	ISA(SSE42, 1, 2, 20),
	ISA(SSE4A, 0x80000001, 2, 6),
	ISA(SSSE3, 1, 2, 9),
	ISA(SSSE3MMX, 1, 2, 9),
	ISA(VAES, 7, 2, 9),
	ISA(VPCLMULQDQ, 7, 2, 10),
	ISA(XSAVE, 1, 2, 26),
	ISA(PKU, 7, 2, 3),
	ISA_RANGE(AVX512BW_128, AVX512BW_KOP, 7, 1, 30),
	ISA_RANGE(AVX512CD_128, AVX512CD_512, 7, 1, 28),
	ISA_RANGE(AVX512DQ_128, AVX512DQ_SCALAR, 7, 1, 17),
	ISA_RANGE(AVX512F_128, AVX512F_SCALAR, 7, 1, 16),
	ISA_RANGE(AVX512_BITALG_128, AVX512_BITALG_512, 7, 2, 12),
	ISA_RANGE(AVX512_GFNI_128, AVX512_GFNI_512, 7, 2, 8),
	ISA_RANGE(AVX512_IFMA_128, AVX512_IFMA_512, 7, 1, 21),
	ISA_RANGE(AVX512_VAES_128, AVX512_VAES_512, 7, 2, 9),
	ISA_RANGE(AVX512_VBMI2_128, AVX512_VBMI2_512, 7, 2, 6),
	ISA_RANGE(AVX512_VBMI_128, AVX512_VBMI_512, 7, 2, 1),
	ISA_RANGE(AVX512_VNNI_128, AVX512_VNNI_512, 7, 2, 11),
	ISA_RANGE(AVX512_VP2INTERSECT_128, AVX512_VP2INTERSECT_512, 7, 3, 8),
	ISA_RANGE(AVX512_VPCLMULQDQ_128, AVX512_VPCLMULQDQ_512, 7, 2, 10),
	ISA_RANGE(AVX512_VPOPCNTDQ_128, AVX512_VPOPCNTDQ_512, 7, 2, 14),
	ISA_RANGE(AVX512_FP16_128, AVX512_FP16_SCALAR, 7, 3, 23),
};

/* In every x86-64 processor, or harmless where it lacks (hint encodings). */
static const uint16_t
	isa_base[] =
		{
			ZYDIS_ISA_SET_CMOV,
			ZYDIS_ISA_SET_FAT_NOP,
			ZYDIS_ISA_SET_FCMOV,
			ZYDIS_ISA_SET_FXSAVE,
			ZYDIS_ISA_SET_FXSAVE64,
			ZYDIS_ISA_SET_I186,
			ZYDIS_ISA_SET_I286PROTECTED,
			ZYDIS_ISA_SET_I286REAL,
			ZYDIS_ISA_SET_I386,
			ZYDIS_ISA_SET_I486,
			ZYDIS_ISA_SET_I486REAL,
			ZYDIS_ISA_SET_I86,
			ZYDIS_ISA_SET_LAHF,
			ZYDIS_ISA_SET_LONGMODE,
			ZYDIS_ISA_SET_PAUSE,
			ZYDIS_ISA_SET_PENTIUMMMX,
			ZYDIS_ISA_SET_PENTIUMREAL,
			ZYDIS_ISA_SET_PPRO,
			ZYDIS_ISA_SET_PREFETCH_NOP,
			ZYDIS_ISA_SET_PREFETCHWT1,
			ZYDIS_ISA_SET_RDPMC,
			ZYDIS_ISA_SET_SSE,
			ZYDIS_ISA_SET_SSE2,
			ZYDIS_ISA_SET_SSE2MMX,
			ZYDIS_ISA_SET_SSEMXCSR,
			ZYDIS_ISA_SET_SSE_PREFETCH,
			ZYDIS_ISA_SET_X87,
			ZYDIS_ISA_SET_CLDEMOTE,
			ZYDIS_ISA_SET_AMD, /* SYSCALL, SYSRET */
			ZYDIS_ISA_SET_SVM,
			ZYDIS_ISA_SET_VTX, /* VMMCALL, VMCALL; the others: jit_carried */
};

static bool shows(const struct cpuid_table *t, uint32_t leaf, uint32_t sub, unsigned reg,
		  unsigned bit)
{
	static const struct x86_state none;
	uint32_t out[4];

	cpuid_query(t, &none, 0, leaf, sub, out);
	return out[reg] >> bit & 1;
}

void jit_isa_init(bool *isa_ok, const struct cpuid_table *t)
{
	for (unsigned i = 0; i < ARRAY_SIZE(isa_base); i++)
		isa_ok[isa_base[i]] = true;
	for (unsigned i = 0; i < ARRAY_SIZE(isa_bits); i++) {
		const struct isa_bit *b = &isa_bits[i];

		for (unsigned s = b->first; s <= b->last; s++)
			isa_ok[s] = shows(t, b->leaf, 0, b->reg, b->bit);
	}
	isa_ok[ZYDIS_ISA_SET_XSAVEOPT] = shows(t, 0xd, 1, 0, 0);
	isa_ok[ZYDIS_ISA_SET_XSAVEC] = shows(t, 0xd, 1, 0, 1);
	isa_ok[ZYDIS_ISA_SET_XSAVES] = shows(t, 0xd, 1, 0, 3);
	isa_ok[ZYDIS_ISA_SET_AVX_VNNI] = shows(t, 7, 1, 0, 4);
	for (unsigned s = ZYDIS_ISA_SET_AVX512_BF16_128; s <= ZYDIS_ISA_SET_AVX512_BF16_512; s++)
		isa_ok[s] = shows(t, 7, 1, 0, 5);
}

/* Does this instruction exist in mode? Where not, it is #UD, or #NM for a lazily switched FPU. */
enum insn_gate jit_gate(const ZydisDecodedInstruction *z, const bool *isa_ok, uint32_t mode)
{
	ZydisISASet s = z->meta.isa_set;

	if (!isa_ok[s])
		return GATE_UD;
	if ((s == ZYDIS_ISA_SET_SVM || s == ZYDIS_ISA_SET_VTX) &&
	    z->mnemonic != ZYDIS_MNEMONIC_VMMCALL && z->mnemonic != ZYDIS_MNEMONIC_VMCALL)
		return GATE_UD;
	if (s == ZYDIS_ISA_SET_BMI1 || s == ZYDIS_ISA_SET_BMI2)
		return GATE_OK; /* VEX, but general registers only */
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
	    (s >= ZYDIS_ISA_SET_AVX512BW_128 && s <= ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_512))
		return mode & MODE_AVX512 ? mode & MODE_NOFPU ? GATE_NM : GATE_OK : GATE_UD;
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return mode & MODE_AVX ? mode & MODE_NOFPU ? GATE_NM : GATE_OK : GATE_UD;
	switch (s) {
	case ZYDIS_ISA_SET_X87:
	case ZYDIS_ISA_SET_FCMOV:
	case ZYDIS_ISA_SET_SSE3X87:
		if (z->mnemonic == ZYDIS_MNEMONIC_FWAIT)
			return mode & MODE_NOWAIT ? GATE_NM : GATE_OK;
		return mode & MODE_NOFPU ? GATE_NM : GATE_OK;
	case ZYDIS_ISA_SET_PENTIUMMMX:
	case ZYDIS_ISA_SET_SSSE3MMX:
		return mode & MODE_EM ? GATE_UD : mode & MODE_NOFPU ? GATE_NM : GATE_OK;
	case ZYDIS_ISA_SET_FXSAVE:
	case ZYDIS_ISA_SET_FXSAVE64: return mode & MODE_NOFPU ? GATE_NM : GATE_OK;
	case ZYDIS_ISA_SET_SSE:
	case ZYDIS_ISA_SET_SSE2:
		if (z->mnemonic == ZYDIS_MNEMONIC_SFENCE || z->mnemonic == ZYDIS_MNEMONIC_LFENCE ||
		    z->mnemonic == ZYDIS_MNEMONIC_MFENCE || z->mnemonic == ZYDIS_MNEMONIC_MOVNTI)
			return GATE_OK;
		break;
	case ZYDIS_ISA_SET_AES:
	case ZYDIS_ISA_SET_GFNI:
	case ZYDIS_ISA_SET_PCLMULQDQ:
	case ZYDIS_ISA_SET_SHA:
	case ZYDIS_ISA_SET_SSE2MMX:
	case ZYDIS_ISA_SET_SSE3:
	case ZYDIS_ISA_SET_SSE4:
	case ZYDIS_ISA_SET_SSE4A:
	case ZYDIS_ISA_SET_SSEMXCSR:
	case ZYDIS_ISA_SET_SSSE3: break;
	case ZYDIS_ISA_SET_SSE42:
		if (z->mnemonic == ZYDIS_MNEMONIC_CRC32)
			return GATE_OK;
		break;
	default: return GATE_OK;
	}
	return mode & MODE_NOSSE ? GATE_UD : mode & MODE_NOFPU ? GATE_NM : GATE_OK;
}
