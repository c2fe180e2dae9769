#include "cases.h"

#define LONG  BIT(CASE_LONG)
#define FLAT  BIT(CASE_FLAT)
#define ALL32 (BIT(CASE_FLAT) | BIT(CASE_PAGED) | BIT(CASE_PAE))
#define ALL   (LONG | ALL32)
#define ANY   (ALL | BIT(CASE_16))

#define CODE(s) .code = s, .len = sizeof(s) - 1
#define IN(...)                                                                                    \
	.in = {__VA_ARGS__},                                                                       \
	.ins = sizeof((struct case_reg[]){__VA_ARGS__}) / sizeof(struct case_reg)
#define OUT(...)                                                                                   \
	.out = {__VA_ARGS__},                                                                      \
	.outs = sizeof((struct case_reg[]){__VA_ARGS__}) / sizeof(struct case_reg)
#define LOG(...)                                                                                   \
	.log = {__VA_ARGS__},                                                                      \
	.logs = sizeof((struct vm_access[]){__VA_ARGS__}) / sizeof(struct vm_access)

#define PORT VM_RECORD_PORT
#define MMIO VM_RECORD_MMIO
#define PR(off, size, v)                                                                           \
	{                                                                                          \
		BUS_PIO, 0, size, PORT + (off), v                                                  \
	}
#define PW(off, size, v)                                                                           \
	{                                                                                          \
		BUS_PIO, 1, size, PORT + (off), v                                                  \
	}
#define MR(off, size, v)                                                                           \
	{                                                                                          \
		BUS_MMIO, 0, size, MMIO + (off), v                                                 \
	}
#define MW(off, size, v)                                                                           \
	{                                                                                          \
		BUS_MMIO, 1, size, MMIO + (off), v                                                 \
	}

#define A  X86_RAX
#define C  X86_RCX
#define DX X86_RDX
#define B  X86_RBX
#define SP X86_RSP
#define SI X86_RSI
#define DI X86_RDI

/* A read of n bytes at offset o gives bytes a0 + o, a1 + o, ... (vm.c). */
const struct engine_case engine_cases[] = {
	{"in al, dx", ALL, CODE("\xec"), IN({A, 0xffffffff}, {DX, PORT + 4}), OUT({A, 0xffffffa4}),
	 LOG(PR(4, 1, 0xa4))},
	{"in ax, dx", ALL, CODE("\x66\xed"), IN({A, 0xffffffff}, {DX, PORT + 4}),
	 OUT({A, 0xffffa5a4}), LOG(PR(4, 2, 0xa5a4))},
	{"in eax, dx", ALL, CODE("\xed"), IN({A, 0xffffffff}, {DX, PORT + 4}), OUT({A, 0xa7a6a5a4}),
	 LOG(PR(4, 4, 0xa7a6a5a4))},
	{"in eax, dx clears the upper half", LONG, CODE("\xed"),
	 IN({A, 0xffffffffffffffff}, {DX, PORT}), OUT({A, 0xa3a2a1a0}), LOG(PR(0, 4, 0xa3a2a1a0))},
	{"out dx, al", ALL, CODE("\xee"), IN({A, 0x12345678}, {DX, PORT + 9}), OUT({A, 0x12345678}),
	 LOG(PW(9, 1, 0x78))},
	{"out dx, ax", ALL, CODE("\x66\xef"), IN({A, 0x12345678}, {DX, PORT + 10}),
	 OUT({A, 0x12345678}), LOG(PW(10, 2, 0x5678))},
	{"out dx, eax", ALL, CODE("\xef"), IN({A, 0x12345678}, {DX, PORT + 12}),
	 OUT({A, 0x12345678}), LOG(PW(12, 4, 0x12345678))},
	{"an unclaimed port reads as ones", ALL, CODE("\xed"), IN({A, 1}, {DX, 0x7777}),
	 OUT({A, 0xffffffff})},
	{"rep outsb", ALL, CODE("\xf3\x6e"), IN({C, 3}, {DX, PORT}, {SI, CASE_DATA}),
	 OUT({C, 0}, {SI, CASE_DATA + 3}), LOG(PW(0, 1, 0x00), PW(0, 1, 0x01), PW(0, 1, 0x02))},
	{"rep outsd", ALL, CODE("\xf3\x6f"), IN({C, 2}, {DX, PORT}, {SI, CASE_DATA}),
	 OUT({C, 0}, {SI, CASE_DATA + 8}), LOG(PW(0, 4, 0x03020100), PW(0, 4, 0x07060504))},
	{"rep outsb downwards", ALL, CODE("\xfd\xf3\x6e\xfc"),
	 IN({C, 2}, {DX, PORT}, {SI, CASE_DATA + 5}), OUT({C, 0}, {SI, CASE_DATA + 3}),
	 LOG(PW(0, 1, 0x05), PW(0, 1, 0x04))},
	{"rep insb, then read back", ALL, CODE("\xf3\x6c\x8b\x03"),
	 IN({C, 4}, {DX, PORT + 1}, {DI, CASE_DATA}, {B, CASE_DATA}),
	 OUT({C, 0}, {DI, CASE_DATA + 4}, {A, 0xa1a1a1a1}),
	 LOG(PR(1, 1, 0xa1), PR(1, 1, 0xa1), PR(1, 1, 0xa1), PR(1, 1, 0xa1))},
	{"rep insw with a count of 0", ALL, CODE("\x66\xf3\x6d"),
	 IN({C, 0}, {DX, PORT + 1}, {DI, CASE_DATA}), OUT({C, 0}, {DI, CASE_DATA})},

	{"mmio mov r8", ALL, CODE("\x8a\x03"), IN({A, 0x55555555}, {B, MMIO + 3}),
	 OUT({A, 0x555555a3}), LOG(MR(3, 1, 0xa3))},
	{"mmio mov r16", ALL, CODE("\x66\x8b\x03"), IN({A, 0x55555555}, {B, MMIO + 2}),
	 OUT({A, 0x5555a3a2}), LOG(MR(2, 2, 0xa3a2))},
	{"mmio mov r32", ALL, CODE("\x8b\x03"), IN({A, 0}, {B, MMIO}), OUT({A, 0xa3a2a1a0}),
	 LOG(MR(0, 4, 0xa3a2a1a0))},
	{"mmio mov r64", LONG, CODE("\x48\x8b\x03"), IN({A, 0}, {B, MMIO}),
	 OUT({A, 0xa7a6a5a4a3a2a1a0}), LOG(MR(0, 8, 0xa7a6a5a4a3a2a1a0))},
	{"mmio store of 8 bits", ALL, CODE("\x88\x03"), IN({A, 0x11223344}, {B, MMIO + 5}),
	 OUT({A, 0x11223344}), LOG(MW(5, 1, 0x44))},
	{"mmio store of 16 bits", ALL, CODE("\x66\x89\x03"), IN({A, 0x11223344}, {B, MMIO + 6}),
	 OUT({A, 0x11223344}), LOG(MW(6, 2, 0x3344))},
	{"mmio store of 32 bits", ALL, CODE("\x89\x03"), IN({A, 0x11223344}, {B, MMIO + 8}),
	 OUT({A, 0x11223344}), LOG(MW(8, 4, 0x11223344))},
	{"mmio store of 64 bits", LONG, CODE("\x48\x89\x03"),
	 IN({A, 0x1122334455667788}, {B, MMIO + 8}), OUT({A, 0x1122334455667788}),
	 LOG(MW(8, 8, 0x1122334455667788))},
	{"mmio store of an immediate", ALL, CODE("\xc7\x03\x78\x56\x34\x12"), IN({B, MMIO + 4}),
	 OUT({B, MMIO + 4}), LOG(MW(4, 4, 0x12345678))},
	{"mmio movzx", ALL, CODE("\x0f\xb6\x03"), IN({A, ~0u}, {B, MMIO + 1}), OUT({A, 0xa1}),
	 LOG(MR(1, 1, 0xa1))},
	{"mmio movsx", ALL, CODE("\x0f\xbe\x03"), IN({A, 0}, {B, MMIO + 1}), OUT({A, 0xffffffa1}),
	 LOG(MR(1, 1, 0xa1))},
	{"mmio or: one read, one write", ALL, CODE("\x83\x0b\x0f"), IN({B, MMIO + 16}),
	 OUT({B, MMIO + 16}), LOG(MR(16, 4, 0xb3b2b1b0), MW(16, 4, 0xb3b2b1bf))},
	{"mmio xchg", ALL, CODE("\x87\x03"), IN({A, 0x99}, {B, MMIO}), OUT({A, 0xa3a2a1a0}),
	 LOG(MR(0, 4, 0xa3a2a1a0), MW(0, 4, 0x99))},
	{"mmio test: no write", ALL, CODE("\xf7\x03\x01\x00\x00\x00"), IN({B, MMIO}),
	 OUT({B, MMIO}), LOG(MR(0, 4, 0xa3a2a1a0)), .flags_mask = RFLAGS_ZF,
	 .flags_out = RFLAGS_ZF},
	{"mmio add to a register", ALL, CODE("\x03\x03"), IN({A, 1}, {B, MMIO}),
	 OUT({A, 0xa3a2a1a1}), LOG(MR(0, 4, 0xa3a2a1a0)), .flags_mask = RFLAGS_CF | RFLAGS_SF,
	 .flags_out = RFLAGS_SF},
	{"mmio rep movsd to RAM", ALL, CODE("\xf3\xa5\x8b\x03"),
	 IN({C, 2}, {SI, MMIO}, {DI, CASE_DATA}, {B, CASE_DATA + 4}),
	 OUT({C, 0}, {SI, MMIO + 8}, {DI, CASE_DATA + 8}, {A, 0xa7a6a5a4}),
	 LOG(MR(0, 4, 0xa3a2a1a0), MR(4, 4, 0xa7a6a5a4))},
	{"mmio rep movsw from RAM", ALL, CODE("\x66\xf3\xa5"),
	 IN({C, 2}, {DI, MMIO + 32}, {SI, CASE_DATA}), OUT({C, 0}, {DI, MMIO + 36}),
	 LOG(MW(32, 2, 0x0100), MW(34, 2, 0x0302))},
	{"mmio rep stosb", ALL, CODE("\xf3\xaa"), IN({A, 0x7e}, {C, 3}, {DI, MMIO + 1}),
	 OUT({C, 0}, {DI, MMIO + 4}), LOG(MW(1, 1, 0x7e), MW(2, 1, 0x7e), MW(3, 1, 0x7e))},
	{"mmio push", LONG, CODE("\xff\x33\x5f"), IN({B, MMIO}), OUT({DI, 0xa7a6a5a4a3a2a1a0}),
	 LOG(MR(0, 8, 0xa7a6a5a4a3a2a1a0))},

	{"r13 and r14, the stack used in between", LONG,
	 CODE("\x49\x89\xc5\x49\x89\xde\x48\x01\xd8\x51\x59\x4d\x11\xf5\x4c\x89\xea"),
	 IN({A, UINT64_MAX}, {B, 2}), OUT({A, 1}, {DX, 2})},
	{"r13, flags needed in between", LONG,
	 CODE("\xf9\x51\x59\x49\x89\xcd\x48\x83\xd1\x00\x4c\x89\xea"), IN({C, 5}),
	 OUT({C, 6}, {DX, 5})},
	{"r14 in an address", LONG,
	 CODE("\x49\x89\xc6\x4d\x8d\x7c\x1e\x01\x4c\x89\xf2\x4c\x89\xf9"), IN({A, 100}, {B, 10}),
	 OUT({DX, 100}, {C, 111})},
	{"xchg r13, r15", LONG,
	 CODE("\x49\x89\xc5\x49\x89\xdf\x4d\x87\xfd\x4c\x89\xe9\x4c\x89\xfa"), IN({A, 1}, {B, 2}),
	 OUT({C, 2}, {DX, 1})},
	{"add, 32 bits", ANY, CODE("\x01\xd8\x90"), IN({A, 7}, {B, 5}), OUT({A, 12})},
	{"lea", ALL32, CODE("\x8d\x44\x8b\x10"), IN({B, 0x1000}, {C, 4}), OUT({A, 0x1020})},
	{"daa", ALL32, CODE("\x27"), IN({A, 0x9b}), OUT({A, 0x01}), .flags_mask = RFLAGS_CF,
	 .flags_out = RFLAGS_CF},
	{"push es; pop eax", ALL32, CODE("\x06\x58"), IN({A, 0}), OUT({A, 0x10})},
	{"pusha; popa", ALL32, CODE("\x60\x31\xdb\x31\xc9\x61"),
	 IN({A, 1}, {B, 2}, {C, 3}, {DX, 4}), OUT({A, 1}, {B, 2}, {C, 3}, {DX, 4})},
	{"inc, one byte", ALL32, CODE("\x40\x43\x4b"), IN({A, 5}, {B, 6}), OUT({A, 6}, {B, 6})},
	{"call and ret, 32 bits", ALL32, CODE("\xe8\x02\x00\x00\x00\xeb\x02\x43\xc3\x40"),
	 IN({A, 0}, {B, 0}), OUT({A, 1}, {B, 1})},
	{"enter and leave", ALL32, CODE("\xc8\x10\x00\x00\x89\xe0\xc9\x29\xe0\xf7\xd8"), IN({A, 0}),
	 OUT({A, 0x14})},
	{"16-bit code: mov with a 16-bit immediate", BIT(CASE_16), CODE("\xb8\x34\x12\xbb\x78\x56"),
	 IN({A, 0xffff0000}, {B, 0}), OUT({A, 0xffff1234}, {B, 0x5678})},
	{"16-bit code: 66 makes it 32", BIT(CASE_16), CODE("\x66\xb8\x78\x56\x34\x12"), IN({A, 0}),
	 OUT({A, 0x12345678})},
	{"16-bit code: push and pop", BIT(CASE_16), CODE("\x50\x5b"), IN({A, 0xabcd1234}, {B, 0}),
	 OUT({B, 0x1234})},
	{"16-bit code: xlat wraps at 64K", BIT(CASE_16), CODE("\x36\xd7"),
	 IN({A, 0x20}, {B, 0xcafefff0}), OUT({A, 0x10})},
	{"16-bit code: leave takes BP alone", BIT(CASE_16),
	 CODE("\x66\xbd\xfc\x0f\xcd\xab\xc9\x89\xe0"), IN({A, 0}), OUT({A, 0x0ffe})},
};

const unsigned engine_case_count = sizeof engine_cases / sizeof *engine_cases;
