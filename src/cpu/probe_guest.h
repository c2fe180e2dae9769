/* probe_guest: what probe.c and its guest (probe_guest.S) agree on: places in guest memory,
 * selectors, vectors, steps. Included by the assembler too. */
#pragma once

#define PROBE_PML4       0x1000
#define PROBE_PDPT       0x2000
#define PROBE_PD         0x3000 /* maps the first 2 MiB, for both rings */
#define PROBE_GDT        0x4000
#define PROBE_IDT        0x5000
#define PROBE_TSS        0x6000
#define PROBE_SEEN       0x7000
#define PROBE_CODE       0x8000
#define PROBE_SCRATCH    0x9000
#define PROBE_STACK      0xb000 /* tops of stacks */
#define PROBE_TRAP_STACK 0xc000
#define PROBE_USER_STACK 0xd000
#define PROBE_BYTES      0x10000
#define PROBE_UNMAPPED   0x200123

/* GDT. SYSRET loads CS from its base + 16, SS from base + 8. */
#define PROBE_CS          0x08
#define PROBE_SS          0x10
#define PROBE_SYSRET_BASE 0x1b
#define PROBE_USER_SS     0x23
#define PROBE_USER_CS     0x2b
#define PROBE_TR          0x30

#define PROBE_SOFT_VECTOR     0x40
#define PROBE_EXTERNAL_VECTOR 0x41
#define PROBE_BACK_VECTOR     0x42

#define PROBE_PORT       0x10
#define PROBE_LOOP_INSNS 5
#define PROBE_WAIT_LOOPS 2000

/* What the guest says on its port when it begins a step. What takes time comes last. */
#define STEP_PAGE_FAULT     1
#define STEP_SYSCALL        2
#define STEP_SOFT_INTERRUPT 3
#define STEP_CMPXCHG16B     4
#define STEP_EXTERNAL       5
#define STEP_LOOP           6
#define STEP_DONE           7
#define STEP_TRAP           8

/* struct probe_seen, for the assembler */
#define SEEN_PF_CR2     0
#define SEEN_PF_ERROR   8
#define SEEN_SOFT       12
#define SEEN_EXTERNAL   16
#define SEEN_SYSCALL_CS 20
#define SEEN_SYSRET_CS  24
#define SEEN_CMPXCHG16B 28
