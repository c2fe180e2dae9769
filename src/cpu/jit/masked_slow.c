/* masked: vector operands under a mask touch memory only for their active elements, and fault
 * only for those (SDM volume 2A, 2.7.4; VMASKMOV in volume 2C). */
#include "cpu/jit/core.h"
#include "cpu/jit/insn.h"

static uint64_t all_bytes(unsigned size)
{
	return size >= 64 ? ~0ull : BIT(size) - 1;
}

/* One bit per element spread to one bit per byte. */
static uint64_t spread(uint64_t mask, unsigned elements, unsigned bytes_each)
{
	uint64_t out = 0;

	for (unsigned n = 0; n < elements && n * bytes_each < 64; n++)
		if (mask >> n & 1)
			out |= all_bytes(bytes_each) << (n * bytes_each);
	return out;
}

/* Bit n: the sign of element n of a vector register of up to 256 bits. */
static uint64_t sign_mask(const struct jit_cpu *c, unsigned reg, unsigned elements,
			  unsigned bytes_each)
{
	uint64_t out = 0;

	for (unsigned n = 0; n < elements; n++) {
		unsigned last = n * bytes_each + bytes_each - 1;
		const uint8_t *at = last < 16 ? c->st.xsave + 160 + 16 * reg + last
					      : c->st.xsave + c->p->ymm_off + 16 * reg + last - 16;

		if ((last < 16 ? BIT(1) : BIT(2)) & load_le(c->st.xsave + 512, 8))
			out |= (uint64_t)(*at >> 7) << n;
	}
	return out;
}

static bool packs(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VCOMPRESSPD:
	case ZYDIS_MNEMONIC_VCOMPRESSPS:
	case ZYDIS_MNEMONIC_VPCOMPRESSB:
	case ZYDIS_MNEMONIC_VPCOMPRESSD:
	case ZYDIS_MNEMONIC_VPCOMPRESSQ:
	case ZYDIS_MNEMONIC_VPCOMPRESSW:
	case ZYDIS_MNEMONIC_VEXPANDPD:
	case ZYDIS_MNEMONIC_VEXPANDPS:
	case ZYDIS_MNEMONIC_VPEXPANDB:
	case ZYDIS_MNEMONIC_VPEXPANDD:
	case ZYDIS_MNEMONIC_VPEXPANDQ:
	case ZYDIS_MNEMONIC_VPEXPANDW: return true;
	default: return false;
	}
}

/* Shuffles, permutes, packs and the like need all of their source whatever the mask: their
 * exception class is one without fault suppression (SDM volume 2A, 2.8). */
static bool suppresses_faults(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) { /* whose class says otherwise, or is not what processors do */
	case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
	case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
	case ZYDIS_MNEMONIC_VDBPSADBW:
	case ZYDIS_MNEMONIC_VCVTNE2PS2BF16: return false;
	default: break;
	}
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E4NF:
	case ZYDIS_EXCEPTION_CLASS_E5NF:
	case ZYDIS_EXCEPTION_CLASS_E6NF:
	case ZYDIS_EXCEPTION_CLASS_E9NF:
	case ZYDIS_EXCEPTION_CLASS_E10NF: return false;
	default: return true;
	}
}

/* How many elements of the memory operand the mask governs: those of the vector registers,
 * of which a scalar or narrow operand has fewer, and a dot product's has finer ones. */
static unsigned masked_elements(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	unsigned in_reg = 0, in_mem = ~0u;

	switch (z->avx.broadcast.mode) {
	case ZYDIS_BROADCAST_MODE_1_TO_2: return 2;
	case ZYDIS_BROADCAST_MODE_1_TO_4: return 4;
	case ZYDIS_BROADCAST_MODE_1_TO_8: return 8;
	case ZYDIS_BROADCAST_MODE_1_TO_16: return 16;
	case ZYDIS_BROADCAST_MODE_1_TO_32: return 32;
	case ZYDIS_BROADCAST_MODE_1_TO_64: return 64;
	default: break;
	}
	if (z->mnemonic == ZYDIS_MNEMONIC_VPSHUFBITQMB)
		return z->avx.vector_length / 8; /* a bit of the mask for each byte */
	for (unsigned n = 0; n < z->operand_count_visible; n++) {
		if (op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
			in_mem = op[n].element_count;
		else if (op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
			 op[n].encoding != ZYDIS_OPERAND_ENCODING_MASK &&
			 ZydisRegisterGetClass(op[n].reg.value) != ZYDIS_REGCLASS_MASK &&
			 op[n].element_count > in_reg)
			in_reg = op[n].element_count;
	}
	if (z->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID)
		return in_reg;
	return in_reg && in_reg < in_mem ? in_reg : in_mem;
}

/* A tuple that is repeated over the register: an element of it counts when one of its copies
 * does. */
static uint64_t fold(uint64_t mask, unsigned elements, unsigned tuple)
{
	uint64_t out = 0;

	for (unsigned n = 0; n < elements && n < 64; n++)
		out |= (mask >> n & 1) << n % tuple;
	return out;
}

static bool repeats_tuple(const ZydisDecodedInstruction *z)
{
	switch (z->avx.broadcast.mode) {
	case ZYDIS_BROADCAST_MODE_2_TO_4:
	case ZYDIS_BROADCAST_MODE_2_TO_8:
	case ZYDIS_BROADCAST_MODE_2_TO_16:
	case ZYDIS_BROADCAST_MODE_4_TO_8:
	case ZYDIS_BROADCAST_MODE_4_TO_16:
	case ZYDIS_BROADCAST_MODE_8_TO_16: return true;
	default: return false;
	}
}

/* A block in step mode may be older than the translator's working memory: decode it again. */
static bool decode(struct jit_cpu *c, ZydisDecodedInstruction *z, ZydisDecodedOperand *op)
{
	uint64_t gva = jit_linear_rip(c);
	unsigned left = 4096 - (gva & 0xfff), len = left < 15 ? left : 15;
	uint8_t bytes[15];
	ZydisDecoder d;
	ZyanStatus s;

	(void)ZydisDecoderInit(&d,
			       c->mode & MODE_CODE64 ? ZYDIS_MACHINE_MODE_LONG_64
						     : ZYDIS_MACHINE_MODE_LEGACY_32,
			       c->mode & MODE_CODE64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	jit_read_buf(c, c->mmu, gva, bytes, len);
	s = ZydisDecoderDecodeFull(&d, bytes, len, z, op);
	if (s == ZYDIS_STATUS_NO_MORE_DATA && len < 15) {
		jit_read_buf(c, c->mmu, gva + len, bytes + len, 15 - len);
		s = ZydisDecoderDecodeFull(&d, bytes, 15, z, op);
	}
	return ZYAN_SUCCESS(s);
}

uint64_t jit_masked_bytes(struct jit_cpu *c, unsigned size)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	unsigned elements, each;
	uint64_t mask;

	if (!decode(c, &z, op))
		return all_bytes(size);
	if (z.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX) {
		unsigned reg = (unsigned)(uint8_t)ZydisRegisterGetId(
			op[1].type == ZYDIS_OPERAND_TYPE_REGISTER ? op[1].reg.value
								  : op[0].reg.value);

		each = z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS ||
				       z.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD
			       ? 4
			       : 8;
		return spread(sign_mask(c, reg, size / each, each), size / each, each);
	}
	if (!suppresses_faults(&z))
		return all_bytes(size);
	elements = masked_elements(&z, op);
	mask = load_le(c->st.xsave + 512, 8) & BIT(5)
		       ? load_le(c->st.xsave + c->p->opmask_off +
					 8u * (uint8_t)ZydisRegisterGetId(z.avx.mask.reg),
				 8)
		       : 0;
	if (repeats_tuple(&z)) {
		unsigned tuple = op[z.operand_count_visible - 1].element_count;

		if (tuple && size % tuple == 0)
			return spread(fold(mask, elements, tuple), tuple, size / tuple);
	}
	if (z.avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID || !elements || size < elements) {
		mask &= elements && elements < 64 ? BIT(elements) - 1 : ~0ull;
		return mask ? all_bytes(size) : 0;
	}
	each = size / elements;
	if (packs(z.mnemonic)) {
		unsigned active = (unsigned)__builtin_popcountll(
			elements < 64 ? mask & (BIT(elements) - 1) : mask);

		return active ? all_bytes(active * each) : 0;
	}
	return spread(mask, elements, each);
}
