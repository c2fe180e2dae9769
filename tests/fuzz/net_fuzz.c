/* net_fuzz: frames and their headers as a hostile guest or a peer on a switch makes them: layout,
 * checksums, segmentation, fragmentation, the segment size in a SYN, and the switch's messages. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "net/switch_priv.h"
#include "net/user_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	unsigned frames;
	uint8_t sum; /* of all bytes: each is read, so that the sanitizer sees one that is outside */
};

static bool look(void *ctx, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
	struct seen *s = ctx;

	for (unsigned i = 0; i < n; i++)
		for (size_t j = 0; j < iov[i].iov_len; j++)
			s->sum ^= ((const uint8_t *)iov[i].iov_base)[j];
	assert(++s->frames <= NET_SEGMENTS_MAX + 1);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct mss_table table;
	struct seen seen = {0};
	struct net_layout l;
	struct wire_msg m;
	struct net_hdr h;
	unsigned caps;
	uint8_t *copy; /* of just its size, so that the sanitizer sees each step outside */
	size_t len;

	if (size < 1 + sizeof h || size > WIRE_MSG_MAX)
		return 0;
	copy = malloc(size);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	(void)!wire_parse(copy, size, &m);
	free(copy);

	caps = data[0];
	memcpy(&h, data + 1, sizeof h);
	len = size - 1 - sizeof h;
	copy = malloc(len + !len);
	if (!copy)
		return 0;
	memcpy(copy, data + 1 + sizeof h, len);
	if (net_layout(copy, len, &l)) {
		assert(l.end <= len && l.data <= l.end);
		mss_raise(&table, copy, &l, caps & 1);
		if (l.proto == 6)
			(void)mss_of(&table, copy, &l);
	}
	(void)net_finish_offload(caps, &h, copy, len, look, &seen);
	if (caps & 128 && len >= 1500) {
		seen.frames = 0;
		(void)net_fragment4(copy, len, 600, look, &seen);
	}
	free(copy);
	return 0;
}
