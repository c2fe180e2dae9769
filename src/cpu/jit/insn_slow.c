#include "cpu/jit/insn.h"

bool insn_touches(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	const ZyanU64 rep = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;

	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
	    op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN || op->size < 8 ||
	    !(op->actions & (ZYDIS_OPERAND_ACTION_READ | ZYDIS_OPERAND_ACTION_WRITE)) ||
	    (z->attributes & rep))
		return false;
	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	    z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false; /* EVEX may mask it out */
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ: return false;
	default: break;
	}
	switch (z->meta.category) {
	case ZYDIS_CATEGORY_AVX:
	case ZYDIS_CATEGORY_AVX2:
	case ZYDIS_CATEGORY_BINARY:
	case ZYDIS_CATEGORY_BROADCAST:
	case ZYDIS_CATEGORY_CONVERT:
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_LOGICAL:
	case ZYDIS_CATEGORY_LOGICAL_FP:
	case ZYDIS_CATEGORY_SSE:
	case ZYDIS_CATEGORY_VFMA: return true;
	default: return false;
	}
}

bool insn_narrows(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	if (z->operand_count == 0 || op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    !insn_is_gpr(op->reg.value) || op->size < 32)
		return false;
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_CDQE:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_MOVZX: return true;
	case ZYDIS_MNEMONIC_AND:
		if (op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && op[1].imm.value.s >= 0)
			return true;
		return op->size == 32;
	case ZYDIS_MNEMONIC_SHR:
		if (op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
			return false;
		return op->size == 32 || (op[1].imm.value.u >= 32 && op[1].imm.value.u < 64);
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_SHL:
		return op->size == 32 && op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_DEC:
	case ZYDIS_MNEMONIC_INC:
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_NOT:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_XOR: return op->size == 32;
	default: return false;
	}
}
