/* ram: holds memory for as long as it runs and looks again and again whether each word still is
 * what it wrote there: a lost or misplaced write shows as a word that belongs to another address
 * or another round.
 *
 *   ram MIB [ROUNDS]   prints "round ram ok" every 8 MiB, or "round ram WRONG ..." and ends
 *
 * Each round, every page gets new contents, by one of: a write of each word, a copy through another
 * mapping, a child's write to its own copy (after which the parent's must be the old one), a move
 * of the pages to another address, or giving the pages back and having new ones, which are zeros. */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };
enum { PIECE = 64, REPORT = 2048 }; /* pages handled alike; pages for a line */

static uint64_t *memory;
static unsigned long pages;

__attribute__((noreturn, format(printf, 1, 2))) static void wrong(const char *fmt, ...)
{
	va_list a;

	va_start(a, fmt);
	printf("round ram WRONG:");
	vprintf(fmt, a);
	printf("\n");
	fflush(stdout);
	exit(1);
}

static void *map(unsigned long bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		wrong("mmap");
	return p;
}

/* What word n of memory holds after a round. */
static uint64_t value(unsigned long round, unsigned long n)
{
	uint64_t v = (n + 1) * 0x9e3779b97f4a7c15 ^ round * 0xd6e8feb86659fd93;

	return v ^ v >> 29;
}

static void fill(uint64_t *to, unsigned long first, unsigned long words, unsigned long round)
{
	for (unsigned long i = 0; i < words; i++)
		to[i] = value(round, first + i);
}

static void check(const uint64_t *p, unsigned long first, unsigned long words, unsigned long round)
{
	for (unsigned long i = 0; i < words; i++)
		if (p[i] != value(round, first + i))
			wrong("word-%lx-at-%p-of-round-%lu-is-%lx", first + i,
			      (const void *)(p + i), round, (unsigned long)p[i]);
}

static void by_child(uint64_t *p, unsigned long first, unsigned long words, unsigned long round)
{
	int status = -1;
	pid_t child = fork();

	if (child < 0)
		wrong("fork");
	if (!child) {
		fill(p, first, words, round);
		check(p, first, words, round);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status)
		wrong("child-%x", (unsigned)status);
	check(p, first, words, round - 1);
}

static void move_away_and_back(uint64_t *p, unsigned long bytes)
{
	void *to = map(bytes);

	if (mremap(p, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to ||
	    mremap(to, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, p) != p)
		wrong("mremap");
}

static void give_back(uint64_t *p, unsigned long words)
{
	if (madvise(p, words * 8, MADV_DONTNEED) < 0)
		wrong("madvise");
	for (unsigned long i = 0; i < words; i++)
		if (p[i])
			wrong("new-word-at-%p-is-%lx", (void *)(p + i), (unsigned long)p[i]);
}

static void piece(unsigned long round, unsigned long at, unsigned long count)
{
	unsigned long first = at * WORDS, words = count * WORDS;
	uint64_t *p = memory + first, *copy;

	check(p, first, words, round - 1);
	switch ((at / PIECE + round) % 5) {
	case 0: break;
	case 1: by_child(p, first, words, round); break;
	case 2:
		move_away_and_back(p, words * 8);
		check(p, first, words, round - 1);
		break;
	case 3: give_back(p, words); break;
	default:
		copy = map(words * 8);
		fill(copy, first, words, round);
		memcpy(p, copy, words * 8);
		munmap(copy, words * 8);
		return;
	}
	fill(p, first, words, round);
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 0) : ~0ul;

	pages = (argc > 1 ? strtoul(argv[1], NULL, 0) : 0) << 8;
	if (!pages) {
		fputs("usage: ram MIB [ROUNDS]\n", stderr);
		return 1;
	}
	memory = map(pages * PAGE);
	fill(memory, 0, pages * WORDS, 0);
	for (unsigned long round = 1; round <= rounds; round++) {
		for (unsigned long at = 0; at < pages; at += PIECE) {
			piece(round, at, pages - at < PIECE ? pages - at : PIECE);
			if (at % REPORT)
				continue;
			printf("round ram ok\n");
			fflush(stdout);
		}
	}
	return 0;
}
