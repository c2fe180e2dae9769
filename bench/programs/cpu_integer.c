/* cpu_integer: programs that live in registers, caches and branches. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "cpu.h"

/* The mix: lists, a matrix and a state machine, in equal parts, as small programs have them. */

struct node {
	struct node *next;
	int16_t key, value;
};

enum { NODES = 200, SIDE = 24 };

static struct node *merge(struct node *a, struct node *b)
{
	struct node head, *tail = &head;

	while (a && b) {
		struct node **least = a->key <= b->key ? &a : &b;

		tail->next = *least;
		tail = *least;
		*least = tail->next;
	}
	tail->next = a ? a : b;
	return head.next;
}

static struct node *sort_list(struct node *list)
{
	struct node *slow = list, *fast, *half;

	if (!list || !list->next)
		return list;
	for (fast = list->next; fast && fast->next; fast = fast->next->next)
		slow = slow->next;
	half = slow->next;
	slow->next = NULL;
	return merge(sort_list(list), sort_list(half));
}

static unsigned lists(uint64_t *seed)
{
	static struct node nodes[NODES];
	struct node *list = NULL, *back = NULL, *next;
	unsigned found = 0;

	for (unsigned i = 0; i < NODES; i++) {
		nodes[i] = (struct node){list, (int16_t)next_random(seed), (int16_t)i};
		list = &nodes[i];
	}
	for (int16_t want = 0; want < 40; want++)
		for (const struct node *n = list; n; n = n->next)
			if (n->value == want * 5) {
				found += (unsigned)n->key;
				break;
			}
	list = sort_list(list);
	for (; list; list = next) {
		next = list->next;
		list->next = back;
		back = list;
	}
	for (; back; back = back->next)
		found = found * 31 + (unsigned)back->value;
	return found;
}

static unsigned matrices(uint64_t *seed)
{
	static int16_t a[SIDE][SIDE], b[SIDE][SIDE];
	unsigned sum = 0;

	for (unsigned i = 0; i < SIDE * SIDE; i++) {
		a[i / SIDE][i % SIDE] = (int16_t)next_random(seed);
		b[i / SIDE][i % SIDE] = (int16_t)(a[i / SIDE][i % SIDE] >> 3);
	}
	for (unsigned i = 0; i < SIDE; i++)
		for (unsigned j = 0; j < SIDE; j++) {
			unsigned cell = 0;

			for (unsigned k = 0; k < SIDE; k++)
				cell += (unsigned)(a[i][k] * b[k][j]);
			sum = sum * 3 + (cell >> 2 & 15) * (cell >> 5 & 127);
		}
	return sum;
}

/* Which of the words of a text are numbers, and of what kind. */
static unsigned numbers(uint64_t *seed)
{
	static const char letters[] = "0123456789+-.eE,, x";
	enum { START, SIGN, WHOLE, FRACTION, EXPONENT, POWER, WRONG } state = START;
	unsigned seen[WRONG + 1] = {0}, sum = 0;

	for (unsigned i = 0; i < 2000; i++) {
		char c = letters[next_random(seed) % (sizeof letters - 1)];
		int digit = c >= '0' && c <= '9';

		if (c == ',' || c == ' ') {
			seen[state]++;
			state = START;
			continue;
		}
		switch (state) {
		case START:
			state = digit                  ? WHOLE
				: c == '+' || c == '-' ? SIGN
				: c == '.'             ? FRACTION
						       : WRONG;
			break;
		case SIGN: state = digit ? WHOLE : c == '.' ? FRACTION : WRONG; break;
		case WHOLE:
			if (!digit)
				state = c == '.' ? FRACTION : (c | 32) == 'e' ? EXPONENT : WRONG;
			break;
		case FRACTION:
			if (!digit)
				state = (c | 32) == 'e' ? EXPONENT : WRONG;
			break;
		case EXPONENT: state = digit || c == '+' || c == '-' ? POWER : WRONG; break;
		case POWER: state = digit ? POWER : WRONG; break;
		case WRONG: break;
		}
	}
	for (unsigned i = 0; i <= WRONG; i++)
		sum = sum * 131 + seen[i];
	return sum;
}

static uint16_t crc16(uint16_t crc, unsigned value)
{
	for (unsigned i = 0; i < 32; i++, value >>= 1)
		crc = (uint16_t)((crc >> 1) ^ ((crc ^ value) & 1 ? 0xa001 : 0));
	return crc;
}

static uint64_t mix(void)
{
	uint64_t seed = 1;
	uint16_t crc = 0;

	for (unsigned i = 0; i < 60; i++) {
		crc = crc16(crc, lists(&seed));
		crc = crc16(crc, matrices(&seed));
		crc = crc16(crc, numbers(&seed));
	}
	return crc;
}

/* SHA-256, FIPS 180-4, without the processor's own instructions for it. */

static uint32_t rotate(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

/* The first 32 bits of the fractional part of a root, in integers: constants that need no table
 * to be copied from anywhere. */
static uint32_t root_fraction(unsigned p, unsigned power)
{
	/* the largest x with x^power <= p * 2^(32 * power) */
	unsigned __int128 x = 0;

	for (int bit = 36; bit >= 0; bit--) {
		unsigned __int128 y = x | (unsigned __int128)1 << bit;
		unsigned __int128 square = y * y;
		int fits = power == 2 ? square <= (unsigned __int128)p << 64
				      : square <= ((unsigned __int128)p << 96) / y;

		if (fits)
			x = y;
	}
	return (uint32_t)x;
}

static uint32_t sha_k[64], sha_h[8];

static int sha256_setup(void)
{
	unsigned n = 0;

	for (unsigned p = 2; n < 64; p++) {
		unsigned d = 2;

		while (d * d <= p && p % d)
			d++;
		if (d * d <= p)
			continue;
		if (n < 8)
			sha_h[n] = root_fraction(p, 2);
		sha_k[n++] = root_fraction(p, 3);
	}
	return 0;
}

static void sha_block(uint32_t h[8], const unsigned char *data)
{
	uint32_t w[64], s[8];

	for (unsigned i = 0; i < 16; i++) {
		memcpy(&w[i], data + 4 * i, 4);
		w[i] = __builtin_bswap32(w[i]);
	}
	for (unsigned i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(s, h, sizeof s);
	for (unsigned i = 0; i < 64; i++) {
		uint32_t t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
			      ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha_k[i] + w[i];
		uint32_t t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
			      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, sizeof s - sizeof *s);
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (unsigned i = 0; i < 8; i++)
		h[i] += s[i];
}

static uint64_t sha256(void)
{
	unsigned char block[64];
	uint32_t h[8];

	memcpy(h, sha_h, sizeof h);
	for (unsigned i = 0; i < 16 * 1024; i++) {
		memset(block, (int)i, sizeof block);
		sha_block(h, block);
	}
	return (uint64_t)h[0] << 32 | h[7];
}

/* Compression, by zlib: what a system's own archives and packages are made with. */

enum { TEXT_BYTES = 192 << 10 };
static unsigned char *text, *packed, *unpacked;

static int compress_setup(void)
{
	static const char *const words[] = {"the ",        "of ",  "guest ", "host ",
					    "page ",       "a ",   "block ", "is ",
					    "translated ", "and ", "run\n",  "to "};
	uint64_t seed = 3;
	unsigned n = 0;

	text = pages(TEXT_BYTES);
	packed = pages(2 * TEXT_BYTES);
	unpacked = pages(TEXT_BYTES);
	while (n < TEXT_BYTES - 32) {
		uint64_t r = next_random(&seed);

		if (r % 7 == 0) {
			text[n++] = (unsigned char)('a' + (r >> 8) % 26);
			continue;
		}
		for (const char *w = words[(r >> 8) % 12]; *w; w++)
			text[n++] = (unsigned char)*w;
	}
	return 0;
}

static uint64_t compress_text(void)
{
	uLongf packed_bytes = 2 * TEXT_BYTES, bytes = TEXT_BYTES;

	if (compress2(packed, &packed_bytes, text, TEXT_BYTES, 6) != Z_OK ||
	    uncompress(unpacked, &bytes, packed, packed_bytes) != Z_OK ||
	    memcmp(text, unpacked, TEXT_BYTES))
		return 0;
	return (uint64_t)packed_bytes << 32 | crc32(0, unpacked, TEXT_BYTES);
}

/* Sorting, by libc's qsort: a call through a pointer for each comparison. */

enum { ITEMS = 20000 };

struct item {
	uint64_t key;
	uint32_t place, filler;
};

static int compare(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->key < y->key ? -1 : x->key > y->key;
}

static uint64_t sort_items(void)
{
	static struct item items[ITEMS];
	uint64_t seed = 5, sum = 0;

	for (unsigned i = 0; i < ITEMS; i++)
		items[i] = (struct item){next_random(&seed), i, 0};
	qsort(items, ITEMS, sizeof *items, compare);
	for (unsigned i = 0; i < ITEMS; i++)
		sum = sum * 7 + items[i].place;
	return sum;
}

/* A bytecode interpreter: one indirect jump for each operation. The program counts primes. */

enum op { PUSH, LOAD, STORE, ADD, MUL, LESS, JUMP_IF_NOT, JUMP, PEEK, POKE, END };
enum { N, I, J, COUNT, LIMIT = 20000 };

static const int primes[] = {
	/* 0: n = 2 */ PUSH,
	2,
	STORE,
	N,
	/* 4: while n < LIMIT */ LOAD,
	N,
	PUSH,
	LIMIT,
	LESS,
	JUMP_IF_NOT,
	52,
	/* 11: if !sieve[n] */ LOAD,
	N,
	PEEK,
	PUSH,
	1,
	LESS,
	JUMP_IF_NOT,
	43,
	/* 19: count++ */ LOAD,
	COUNT,
	PUSH,
	1,
	ADD,
	STORE,
	COUNT,
	/* 26: j = n + n */ LOAD,
	N,
	LOAD,
	N,
	ADD,
	STORE,
	J,
	/* 33: mark all j */ JUMP,
	53,
	/* 35: unused */ END,
	END,
	END,
	END,
	END,
	END,
	END,
	END,
	/* 43: n++ */ LOAD,
	N,
	PUSH,
	1,
	ADD,
	STORE,
	N,
	JUMP,
	4,
	/* 52 */ END,
	/* 53: while j < LIMIT */ LOAD,
	J,
	PUSH,
	LIMIT,
	LESS,
	JUMP_IF_NOT,
	43,
	/* 60: sieve[j] = 1 */ PUSH,
	1,
	LOAD,
	J,
	POKE,
	/* 65: j += n */ LOAD,
	J,
	LOAD,
	N,
	ADD,
	STORE,
	J,
	JUMP,
	53};

static uint64_t interpret(void)
{
	static unsigned char sieve[LIMIT];
	int stack[16], *sp = stack, variables[4] = {0};
	const volatile int *program = primes;
	uint64_t steps = 0;

	memset(sieve, 0, sizeof sieve);
	for (unsigned pc = 0;; steps++) {
		switch ((enum op)program[pc++]) {
		case PUSH: *sp++ = program[pc++]; break;
		case LOAD: *sp++ = variables[program[pc++]]; break;
		case STORE: variables[program[pc++]] = *--sp; break;
		case ADD: sp--, sp[-1] += *sp; break;
		case MUL: sp--, sp[-1] *= *sp; break;
		case LESS: sp--, sp[-1] = sp[-1] < *sp; break;
		case JUMP_IF_NOT: pc = *--sp ? pc + 1 : (unsigned)program[pc]; break;
		case JUMP: pc = (unsigned)program[pc]; break;
		case PEEK: sp[-1] = sieve[sp[-1]]; break;
		case POKE: sp -= 2, sieve[sp[1]] = (unsigned char)*sp; break;
		case END: return steps << 16 | (unsigned)variables[COUNT];
		}
	}
}

/* Recursive calls: returns are the whole work. */

__attribute__((noinline, noclone, optimize("no-optimize-sibling-calls"))) static unsigned fibonacci(
	unsigned n)
{
	unsigned a, b;

	if (n < 2)
		return n;
	a = fibonacci(n - 1);
	b = fibonacci(n - 2);
	__asm__("" : "+r"(a), "+r"(b));
	return a + b;
}

static uint64_t calls(void)
{
	return fibonacci(25);
}

const struct test integer_tests[] = {
	{"integer", "mix", "round", 60, mix, NULL, NULL},
	{"integer", "sha256", "KiB", 1024, sha256, sha256_setup, NULL},
	{"integer", "compress", "KiB", TEXT_BYTES >> 10, compress_text, compress_setup, NULL},
	{"integer", "sort", "item", ITEMS, sort_items, NULL, NULL},
	{"integer", "interpreter", "prime", 2262, interpret, NULL, NULL},
	{"integer", "calls", "call", 242785, calls, NULL, NULL},
	{0},
};
