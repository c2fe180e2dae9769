/* probe_guest: the guest of the KVM probe (probe.c, which also builds its tables). Plain
 * position-independent 64-bit code, copied to PROBE_CODE; it starts in ring 0. A byte
 * written to PROBE_PORT says how far it came; what it saw goes into struct probe_seen at
 * PROBE_SEEN. */
#include "cpu/probe_guest.h"

	.section .rodata
	.balign 16
	.globl probe_guest_begin, probe_guest_end
	.globl probe_guest_trap, probe_guest_pf, probe_guest_soft, probe_guest_external
	.globl probe_guest_back

.macro mark step
	movb $\step, %al
	outb %al, $PROBE_PORT
.endm

probe_guest_begin:
	movl $PROBE_SEEN, %ebx

	mark STEP_PAGE_FAULT
	leaq 1f(%rip), %r8
	movl $PROBE_UNMAPPED, %edi
	movq $1, (%rdi)
1:
	mark STEP_SYSCALL
	movl $0xc0000081, %ecx   /* STAR */
	xorl %eax, %eax
	movl $(PROBE_CS | (PROBE_SYSRET_BASE << 16)), %edx
	wrmsr
	incl %ecx                /* LSTAR */
	leaq entry(%rip), %rax
	xorl %edx, %edx
	wrmsr
	movl $0xc0000084, %ecx   /* SFMASK: no interrupts in the entry */
	movl $0x200, %eax
	wrmsr
	pushq $PROBE_USER_SS
	pushq $PROBE_USER_STACK
	pushq $2
	pushq $PROBE_USER_CS
	leaq user(%rip), %rax
	pushq %rax
	iretq

user:	/* ring 3 */
	syscall
	movl %cs, %eax
	movl %eax, SEEN_SYSRET_CS(%rbx)
	int $PROBE_BACK_VECTOR

entry:	/* where SYSCALL must arrive, in ring 0 */
	movl %cs, %eax
	movl %eax, SEEN_SYSCALL_CS(%rbx)
	sysretq

probe_guest_back: /* out of ring 3, for good */
	mark STEP_SOFT_INTERRUPT
	int $PROBE_SOFT_VECTOR

	mark STEP_CMPXCHG16B
	movl $PROBE_SCRATCH, %edi
	xorl %eax, %eax
	xorl %edx, %edx
	movl $1, %ecx
	pushq %rbx
	movl $2, %ebx
	lock cmpxchg16b (%rdi)
	popq %rbx
	sete SEEN_CMPXCHG16B(%rbx)

	mark STEP_EXTERNAL       /* the host injects it at the next window */
	sti
	movl $PROBE_WAIT_LOOPS, %ecx
1:	cmpl $0, SEEN_EXTERNAL(%rbx)
	loope 1b
	cli

1:	mark STEP_LOOP           /* the host puts a number of loops into RCX; 0: enough */
	jrcxz 2f
	call spin
	jmp 1b
2:
	mark STEP_DONE
	hlt

spin:	/* RCX times PROBE_LOOP_INSNS instructions */
	movl $PROBE_SCRATCH + 64, %edi
1:	movq (%rdi), %rax
	addq $1, %rax
	movq %rax, (%rdi)
	decq %rcx
	jnz 1b
	ret

probe_guest_pf:
	popq %rax
	movl %eax, SEEN_PF_ERROR(%rbx)
	movq %cr2, %rax
	movq %rax, SEEN_PF_CR2(%rbx)
	movq %r8, (%rsp)
	iretq

probe_guest_soft:
	incl SEEN_SOFT(%rbx)
	iretq

probe_guest_external:
	incl SEEN_EXTERNAL(%rbx)
	iretq

probe_guest_trap: /* an exception that nothing here should raise */
	mark STEP_TRAP
	hlt
probe_guest_end:

	.section .note.GNU-stack, "", @progbits
