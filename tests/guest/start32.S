/* start32: multiboot's 32-bit entry stays as it is: trap stubs, and attempts, for guests in 32-bit
 * protected mode (guest32.h). */

	.section .multiboot, "a"
	.balign 4
	.long	0x1badb002, 0, -0x1badb002

	.bss
	.balign 16
	.skip	16384
stack_top:
attempt_esp:
	.skip	4

	.text
	.code32
	.globl	_start, trap_stubs, attempt_, attempt_iret
_start:
	cli
	mov	$stack_top, %esp
	call	guest_main
1:	hlt
	jmp	1b

	.macro	stub v
	.balign 16
	.if	(\v == 8) || (\v >= 10 && \v <= 14) || (\v == 17)
	.else
	push	$0
	.endif
	push	$\v
	jmp	trap_common
	.endm

	.balign 16
trap_stubs:
	.set	v, 0
	.rept	256
	stub	v
	.set	v, v + 1
	.endr

trap_common:
	push	%ds
	push	%es
	pusha
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	cld
	push	%esp
	call	guest_trap		/* 1: back to attempt's caller; 0: resume */
	add	$4, %esp
	test	%eax, %eax
	jne	attempt_back
	popa
	pop	%es
	pop	%ds
	add	$8, %esp
	iret

/* bool attempt_(void (*fn)(uint32_t), uint32_t arg): 1 when it trapped. */
attempt_:
	push	%ebx
	push	%ebp
	push	%esi
	push	%edi
	pushf
	mov	%esp, attempt_esp
	mov	24(%esp), %eax
	push	28(%esp)
	call	*%eax
	xor	%eax, %eax
	jmp	2f
attempt_back:
	mov	$0x10, %eax
	mov	%eax, %ss
	mov	%eax, %ds
	mov	%eax, %es
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$1, %eax
2:	mov	attempt_esp, %esp
	popf
	pop	%edi
	pop	%esi
	pop	%ebp
	pop	%ebx
	ret

/* The same through IRET to eip, cs, eflags, esp, ss of the structure; DS is ring 0's. */
attempt_iret:
	push	%ebx
	push	%ebp
	push	%esi
	push	%edi
	pushf
	mov	%esp, attempt_esp
	mov	24(%esp), %eax
	push	16(%eax)
	push	12(%eax)
	push	8(%eax)
	push	4(%eax)
	push	0(%eax)
	iret
	.section .note.GNU-stack, "", @progbits
