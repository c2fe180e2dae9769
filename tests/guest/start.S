/* start: from multiboot's 32-bit entry to 64-bit C, and the trap stubs.
 *
 * Memory: [0, 1 GiB) identity-mapped for ring 0; the same again at 1 GiB for ring 3
 * (USER_ALIAS); [2 GiB, 2 GiB + 2 MiB) is test_pt's, for the tests to fill. */

	.section .multiboot, "a"
	.balign 4
	.long	0x1badb002, 0, -0x1badb002

	.data
	.balign 4096
	.globl	pml4, pdpt, test_pd, test_pt, user_pd
pml4:	.quad	pdpt + 7
	.fill	511, 8, 0
pdpt:	.quad	kernel_pd + 3
	.quad	user_pd + 7
	.quad	test_pd + 7
	.quad	0
	.fill	508, 8, 0
kernel_pd:
	.set	i, 0
	.rept	512
	.quad	(i << 21) + 0x83
	.set	i, i + 1
	.endr
user_pd:
	.set	i, 0
	.rept	512
	.quad	(i << 21) + 0x87
	.set	i, i + 1
	.endr
test_pd:
	.quad	test_pt + 7
	.fill	511, 8, 0
test_pt:
	.fill	512, 8, 0

	.globl	gdt
	.balign 16
gdt:	.quad	0
	.quad	0x00af9b000000ffff	/* 08 ring 0 code, 64-bit */
	.quad	0x00cf93000000ffff	/* 10 ring 0 data */
	.quad	0x00cf9b000000ffff	/* 18 ring 0 code, 32-bit */
	.quad	0x00cffb000000ffff	/* 20 user code, 32-bit */
	.quad	0x00cff3000000ffff	/* 28 user data */
	.quad	0x00affb000000ffff	/* 30 user code, 64-bit */
	.quad	0x00cf13000000ffff	/* 38 data, not present */
	.quad	0, 0			/* 40 TSS, filled in C */
	.fill	22, 8, 0		/* 50.. for the tests */
gdt_end:
gdtr:	.word	gdt_end - gdt - 1
	.quad	gdt

	.bss
	.balign 16
	.globl	stack_top
	.skip	16384
stack_top:

	.text
	.code32
	.globl	_start
_start:
	cli
	mov	$stack_top, %esp
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x901, %eax		/* SCE, LME, NXE */
	wrmsr
	mov	%cr0, %eax
	and	$~0x4, %eax
	or	$0x80010023, %eax	/* PG, WP, NE, MP, PE */
	mov	%eax, %cr0
	lgdt	gdtr
	ljmp	$0x08, $1f
	.code64
1:	mov	$0x10, %eax
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$stack_top, %rsp
	call	guest_main
	mov	$0xf4, %edx
	out	%al, %dx
2:	hlt
	jmp	2b

/* One stub per vector: pushes an error code where the processor does not, and the vector. */
	.macro	stub v
	.balign 16
	.if	(\v == 8) || (\v >= 10 && \v <= 14) || (\v == 17) || (\v == 21)
	.else
	pushq	$0
	.endif
	pushq	$\v
	jmp	trap_common
	.endm

	.balign 16
	.globl	trap_stubs
trap_stubs:
	.set	v, 0
	.rept	256
	stub	v
	.set	v, v + 1
	.endr

trap_common:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %rdi
	mov	%rsp, %rbx
	and	$-16, %rsp
	cld
	call	guest_trap		/* 1: back to attempt's caller; 0: resume */
	test	%eax, %eax
	jne	attempt_back
	mov	%rbx, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

/* bool attempt_(void (*fn)(uint64_t), uint64_t arg): 1 when it trapped. */
	.globl	attempt_, attempt_user_, attempt_rsp, attempt_back
attempt_:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushfq
	mov	%rsp, attempt_rsp(%rip)
	mov	%rdi, %rax
	mov	%rsi, %rdi
	sub	$8, %rsp
	cld
	call	*%rax
	add	$8, %rsp
	xor	%eax, %eax
	jmp	3f
attempt_back:
	mov	$0x10, %eax
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	attempt_rsp(%rip), %rsp
	mov	$1, %eax
3:	popfq
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/* The same through IRET to a state: rdi points at rip, cs, rflags, rsp, ss; rsi is rdi there. */
attempt_user_:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushfq
	mov	%rsp, attempt_rsp(%rip)
	pushq	32(%rdi)
	pushq	24(%rdi)
	pushq	16(%rdi)
	pushq	8(%rdi)
	pushq	0(%rdi)
	mov	%rsi, %rdi
	.globl	attempt_iret
attempt_iret:
	iretq

	.bss
attempt_rsp:
	.skip	8
	.section .note.GNU-stack, "", @progbits
