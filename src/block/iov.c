/* iov: arithmetic on iovec arrays. */
#include <string.h>

#include "block/block_priv.h"

uint64_t iov_sum(const struct iovec *iov, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

unsigned iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len,
		   struct iovec *out)
{
	unsigned used = 0;

	for (unsigned i = 0; i < n && len; i++) {
		uint64_t piece;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		piece = min_u64(iov[i].iov_len - skip, len);
		out[used++] = (struct iovec){(char *)iov[i].iov_base + skip, piece};
		len -= piece;
		skip = 0;
	}
	return used;
}

/* Calls fn for each piece of [skip, skip + len), with how much came before it. */
static void each_piece(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len,
		       void (*fn)(void *piece, uint64_t piece_len, uint64_t before, void *arg),
		       void *arg)
{
	uint64_t before = 0;

	for (unsigned i = 0; i < n && before < len; i++) {
		uint64_t piece;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		piece = min_u64(iov[i].iov_len - skip, len - before);
		fn((char *)iov[i].iov_base + skip, piece, before, arg);
		before += piece;
		skip = 0;
	}
}

static void zero_piece(void *piece, uint64_t len, uint64_t before, void *arg)
{
	memset(piece, 0, len);
}

static void fill_piece(void *piece, uint64_t len, uint64_t before, void *arg)
{
	memcpy(piece, (const char *)arg + before, len);
}

static void gather_piece(void *piece, uint64_t len, uint64_t before, void *arg)
{
	memcpy((char *)arg + before, piece, len);
}

void iov_zero(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len)
{
	each_piece(iov, n, skip, len, zero_piece, NULL);
}

void iov_fill(const struct iovec *iov, unsigned n, uint64_t skip, const void *from, uint64_t len)
{
	each_piece(iov, n, skip, len, fill_piece, (void *)from);
}

void iov_gather(const struct iovec *iov, unsigned n, uint64_t skip, void *to, uint64_t len)
{
	each_piece(iov, n, skip, len, gather_piece, to);
}
