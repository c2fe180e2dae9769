/* native_entry: into a case and out of it again, on the processor itself.
 * struct native_frame (native.c): gpr[16] at 0, rip 128, rflags 136, fs_base 144,
 * gs_base 152, xsave pointer 160, xfeatures 168, cs 176, ss 184. */

	.bss
	.balign 8
host_rsp:	.skip 8
host_fs:	.skip 8
host_gs:	.skip 8
jump_to:	.skip 8

	.text
	.globl native_enter, native_handler
	.type native_enter, @function
	.type native_handler, @function

/* void native_enter(const struct native_frame *f): returns when the case has trapped. */
native_enter:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, host_rsp(%rip)
	rdfsbase %rax
	mov	%rax, host_fs(%rip)
	rdgsbase %rax
	mov	%rax, host_gs(%rip)
	mov	160(%rdi), %rcx
	mov	168(%rdi), %rax
	xor	%edx, %edx
	xrstor64 (%rcx)
	xor	%eax, %eax		/* a case before may have loaded selectors */
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	144(%rdi), %rax
	wrfsbase %rax
	mov	152(%rdi), %rax
	wrgsbase %rax
	cmpl	$0x33, 176(%rdi)
	jne	2f
	mov	128(%rdi), %rax
	mov	%rax, jump_to(%rip)
	pushq	136(%rdi)
	popfq
	mov	0(%rdi), %rax
	mov	8(%rdi), %rcx
	mov	16(%rdi), %rdx
	mov	24(%rdi), %rbx
	mov	32(%rdi), %rsp
	mov	40(%rdi), %rbp
	mov	48(%rdi), %rsi
	mov	64(%rdi), %r8
	mov	72(%rdi), %r9
	mov	80(%rdi), %r10
	mov	88(%rdi), %r11
	mov	96(%rdi), %r12
	mov	104(%rdi), %r13
	mov	112(%rdi), %r14
	mov	120(%rdi), %r15
	mov	56(%rdi), %rdi
	jmp	*jump_to(%rip)
2:	/* compatibility mode: through IRET; DS and ES are null in 64-bit programs */
	mov	184(%rdi), %rax
	mov	%eax, %ds
	mov	%eax, %es
	pushq	184(%rdi)
	pushq	32(%rdi)
	pushq	136(%rdi)
	pushq	176(%rdi)
	pushq	128(%rdi)
	mov	0(%rdi), %rax
	mov	8(%rdi), %rcx
	mov	16(%rdi), %rdx
	mov	24(%rdi), %rbx
	mov	40(%rdi), %rbp
	mov	48(%rdi), %rsi
	mov	56(%rdi), %rdi
	iretq

/* The signal handler. Brings the C world back (thread pointer, flags), tells
 * native_trapped(ucontext, fs_base, gs_base), and returns from native_enter. */
native_handler:
	rdfsbase %rsi
	rdgsbase %rcx
	mov	host_fs(%rip), %rax
	wrfsbase %rax
	mov	host_gs(%rip), %rax
	wrgsbase %rax
	mov	%rdx, %rdi
	mov	%rcx, %rdx
	sub	$8, %rsp
	pushq	$2
	popfq
	call	native_trapped
	fninit
	movl	$0x1f80, (%rsp)
	ldmxcsr	(%rsp)
	vzeroupper
	mov	host_rsp(%rip), %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.section .note.GNU-stack, "", @progbits
