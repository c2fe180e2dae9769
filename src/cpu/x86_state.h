/* x86_state: everything of one vCPU that a guest can observe; both engines fill and
 * take all of it, so a VM moves between them. It is ours, not an engine's structs
 * renamed. Plain data, owned by whoever holds it.
 *
 * Section numbers are of the Intel SDM, volume 3A, unless said otherwise. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
	X86_RAX,
	X86_RCX,
	X86_RDX,
	X86_RBX,
	X86_RSP,
	X86_RBP,
	X86_RSI,
	X86_RDI,
	X86_R8,
	X86_R14 = 14,
	X86_R15
};
enum x86_sreg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SREGS };

/* A segment register with its hidden part (3.4.3). attr holds the descriptor's
 * access-rights bits (3.4.5): type 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11,
 * and bit 12: unusable (a null selector was loaded; LDTR/TR: none). */
struct x86_seg {
	uint64_t base;
	uint32_t limit; /* in bytes, G already applied: last valid offset */
	uint16_t sel;
	uint16_t attr;
};

#define SEG_TYPE      0x000f
#define SEG_S         0x0010
#define SEG_DPL_SHIFT 5
#define SEG_P         0x0080
#define SEG_AVL       0x0100
#define SEG_L         0x0200
#define SEG_DB        0x0400
#define SEG_G         0x0800
#define SEG_UNUSABLE  0x1000

struct x86_dtr {
	uint64_t base;
	uint16_t limit;
};

/* Events that are under way (6.x); what KVM calls vcpu_events. */
struct x86_events {
	bool exception_pending; /* to be delivered before the next instruction */
	uint8_t exception_vector;
	bool exception_has_error;
	uint32_t exception_error;
	bool interrupt_injected; /* external interrupt acknowledged, not yet delivered */
	uint8_t interrupt_vector;
	bool interrupt_soft;
	bool nmi_pending;
	bool nmi_injected;
	bool nmi_masked; /* between NMI delivery and IRET */
	uint8_t shadow;  /* 1: after STI, 2: after MOV SS / POP SS; for one instruction */
};

enum x86_mp_state { X86_RUNNING, X86_HALTED, X86_WAIT_SIPI, X86_UNINITIALIZED };

/* XSAVE area in the standard (not compacted) format, as the VM's CPUID leaf 0xD lays it out (the
 * host's does, but for a PKRU that it lacks); 4096 bytes hold all components up to AVX-512 and PKRU. */
#define X86_XSAVE_BYTES 4096

struct x86_state {
	uint64_t gpr[16]; /* hardware numbering: rax rcx rdx rbx rsp rbp rsi rdi r8.. */
	uint64_t rip;
	uint64_t rflags;
	struct x86_seg seg[X86_SREGS];
	struct x86_seg ldtr, tr;
	struct x86_dtr gdtr, idtr;

	uint64_t cr0, cr2, cr3, cr4, cr8;
	uint64_t dr[4], dr6, dr7;
	uint64_t xcr0;

	/* MSRs; cpu/msr.h maps numbers to these fields */
	uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, tsc_aux, apic_base, misc_enable, xss, spec_ctrl, tsc_adjust, tsc_deadline;
	uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
	uint64_t mcg_status, mc_ctl[4], mc_status[4], mc_addr[4], mc_misc[4];
	uint64_t kvm_system_time, kvm_wall_clock, kvm_async_pf, kvm_steal_time, kvm_pv_eoi;

	uint64_t tsc; /* the guest's TSC at the moment of storing */

	uint8_t lapic[1024]; /* register page, 16-byte spaced (11.4.1), as KVM_GET_LAPIC has it */
	enum x86_mp_state mp_state;
	struct x86_events events;

	uint8_t xsave[X86_XSAVE_BYTES] __attribute__((aligned(64)));
};

/* The state after RESET (9.1.1): real mode at f000:fff0. vCPU 0 runs, others wait for SIPI. */
void x86_state_reset(struct x86_state *s, uint32_t apic_id);

/* Registers as a person reads them, several lines; at most len - 1 characters. */
void x86_state_print(const struct x86_state *s, char *to, uint32_t len);

/* CR, EFER, RFLAGS and XCR0 bits */
#define CR0_PE 0x00000001u
#define CR0_MP 0x00000002u
#define CR0_EM 0x00000004u
#define CR0_TS 0x00000008u
#define CR0_ET 0x00000010u
#define CR0_NE 0x00000020u
#define CR0_WP 0x00010000u
#define CR0_AM 0x00040000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME        0x000001u
#define CR4_PVI        0x000002u
#define CR4_TSD        0x000004u
#define CR4_DE         0x000008u
#define CR4_PSE        0x000010u
#define CR4_PAE        0x000020u
#define CR4_MCE        0x000040u
#define CR4_PGE        0x000080u
#define CR4_PCE        0x000100u
#define CR4_OSFXSR     0x000200u
#define CR4_OSXMMEXCPT 0x000400u
#define CR4_UMIP       0x000800u
#define CR4_LA57       0x001000u
#define CR4_FSGSBASE   0x010000u
#define CR4_PCIDE      0x020000u
#define CR4_OSXSAVE    0x040000u
#define CR4_SMEP       0x100000u
#define CR4_SMAP       0x200000u
#define CR4_PKE        0x400000u

#define EFER_SCE      0x001u
#define EFER_LME      0x100u
#define EFER_LMA      0x400u
#define EFER_NXE      0x800u
#define EFER_AUTOIBRS 0x200000u

#define RFLAGS_CF    0x00000001u
#define RFLAGS_FIXED 0x00000002u
#define RFLAGS_PF    0x00000004u
#define RFLAGS_AF    0x00000010u
#define RFLAGS_ZF    0x00000040u
#define RFLAGS_SF    0x00000080u
#define RFLAGS_TF    0x00000100u
#define RFLAGS_IF    0x00000200u
#define RFLAGS_DF    0x00000400u
#define RFLAGS_OF    0x00000800u
#define RFLAGS_IOPL  0x00003000u
#define RFLAGS_NT    0x00004000u
#define RFLAGS_RF    0x00010000u
#define RFLAGS_VM    0x00020000u
#define RFLAGS_AC    0x00040000u
#define RFLAGS_VIF   0x00080000u
#define RFLAGS_VIP   0x00100000u
#define RFLAGS_ID    0x00200000u
#define RFLAGS_ARITH (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

#define XCR0_X87    0x01u
#define XCR0_SSE    0x02u
#define XCR0_AVX    0x04u
#define XCR0_AVX512 0xe0u
#define XCR0_PKRU   0x200u

/* Exception vectors (6.3.1) */
enum x86_vector {
	X86_DE,
	X86_DB,
	X86_NMI,
	X86_BP,
	X86_OF,
	X86_BR,
	X86_UD,
	X86_NM,
	X86_DF,
	X86_TS = 10,
	X86_NP,
	X86_SS_FAULT,
	X86_GP,
	X86_PF,
	X86_MF = 16,
	X86_AC,
	X86_MC,
	X86_XM
};

/* Page-fault error code bits (4.7) */
#define PF_P    0x01u
#define PF_W    0x02u
#define PF_U    0x04u
#define PF_RSVD 0x08u
#define PF_I    0x10u
#define PF_PK   0x20u
