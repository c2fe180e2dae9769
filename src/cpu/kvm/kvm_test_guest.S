/* kvm_test_guest: small guests for kvm_test.c. 32-bit flat protected mode without paging,
 * copied to 0x10000 as a whole and entered at a label; ESP is 0x9000. A guest ends in
 * HLT with interrupts off. */
	.section .rodata
	.balign 16
	.code32
	.globl kvm_guest_begin, kvm_guest_end, kvm_guest_ports, kvm_guest_mmio, kvm_guest_wait
	.globl kvm_guest_handler, kvm_guest_eoi_handler, kvm_guest_loop, kvm_guest_fault
	.globl kvm_guest_step, kvm_guest_alien, kvm_guest_msr

kvm_guest_begin:
kvm_guest_ports:
	inb $0x50, %al
	incb %al
	outb %al, $0x52
	movl $0x8000, %esi
	movl $4, %ecx
	movl $0x51, %edx
	cld
	rep outsb
	movl $0x54, %edx
	inl %dx, %eax
	outw %ax, $0x56
	hlt

kvm_guest_mmio:
	movl 0xd0000000, %eax
	incl %eax
	movl %eax, 0xd0000004
	movw $0x1234, 0xd0000008
	movzbl 0xd000000b, %ebx
	hlt

kvm_guest_wait: /* for an interrupt, whose handler ends it */
	sti
1:	hlt
	jmp 1b

kvm_guest_eoi_handler:
	movl $0, 0xfee000b0
kvm_guest_handler:
	movb $0x77, %al
	outb %al, $0x52
	cli
	hlt

kvm_guest_loop:
	incl %eax
	jmp kvm_guest_loop

kvm_guest_fault: /* the IDT is empty */
	ud2

kvm_guest_step:
	movl $5, %eax
	addl $6, %eax
	nop
	hlt

kvm_guest_alien: /* no KVM emulates this; the second time its last byte is another */
	movl $2, %ecx
	movl $0x54, %edx
1:	pshufd $0, 0xd0000000, %xmm0
2:	movd %xmm0, %eax
	outl %eax, %dx
	movb $0xff, 0x10000 + (2b - kvm_guest_begin) - 1
	loop 1b
	hlt

kvm_guest_msr: /* one that KVM does not know and msr_table does */
	movl $0x10b, %ecx
	rdmsr
	outb %al, $0x52
	hlt
kvm_guest_end:

	.section .note.GNU-stack, "", @progbits
