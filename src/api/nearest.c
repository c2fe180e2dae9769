/* nearest_name of options.h: which word was meant by a misspelt one. */
#include "api/option.h"

#include <string.h>

/* Longer words are no misspelling of any of ours. */
#define WORD_MAX 32u

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* How many insertions, deletions, replacements and swaps of neighbours lead from a to b
 * (optimal string alignment); d[i][j] is that for their first i and j letters. */
static unsigned distance(const char *a, const char *b)
{
	unsigned d[WORD_MAX + 1][WORD_MAX + 1];
	size_t la = strlen(a), lb = strlen(b);

	for (unsigned i = 0; i <= la; i++)
		for (unsigned j = 0; j <= lb; j++) {
			if (!i || !j) {
				d[i][j] = i + j;
				continue;
			}
			d[i][j] = least(least(d[i - 1][j], d[i][j - 1]) + 1,
					d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
		}
	return d[la][lb];
}

const char *nearest_name(const char *word, const char *const names[], unsigned n)
{
	const char *best = NULL;
	unsigned best_distance = 0;

	if (strlen(word) > WORD_MAX)
		return NULL;
	for (unsigned i = 0; i < n; i++) {
		unsigned d = strlen(names[i]) <= WORD_MAX ? distance(word, names[i]) : WORD_MAX;

		if (d <= (strlen(names[i]) + 1) / 3 && (!best || d < best_distance)) {
			best = names[i];
			best_distance = d;
		}
	}
	return best;
}
