/* state_fuzz: the reader of device state against any bytes. As hardly any random bytes
 * pass a checksum, checksums are made right first, as a hostile author would. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "state/crc32.h"
#include "state/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Puts the right checksum into each whole section. */
static void forge_checksums(uint8_t *p, size_t left)
{
	while (left >= 13 && left >= 13u + p[0]) {
		size_t head = 1 + p[0] + 8, len = load_le(p + head - 4, 4);
		uint32_t crc = crc32_update(0, p, head);

		if (len > left - head - 4)
			return;
		store_le(p + head, crc32_update(crc, p + head + 4, len), 4);
		p += head + 4 + len;
		left -= head + 4 + len;
	}
}

struct fields {
	bool b;
	uint8_t u8, more8, bytes[7];
	uint16_t u16;
	uint32_t u32, more32;
	uint64_t u64, more64;
};

static void walk(struct state *s, struct fields *f)
{
	state_begin(s, "d", 0);
	state_bool(s, "b", &f->b);
	state_u8(s, "u", &f->u8);
	state_u16(s, "v", &f->u16);
	state_u32(s, "w", &f->u32);
	state_u64(s, "x", &f->u64);
	state_bytes(s, "y", f->bytes, sizeof f->bytes);
	state_end(s);
	state_begin(s, "e", 1);
	state_u8_or(s, "u", &f->more8, 1);
	state_u32_or(s, "w", &f->more32, 2);
	state_u64_or(s, "x", &f->more64, 3);
	state_end(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fields f = {0};
	struct state *s, *out;
	struct err e = {0};
	uint8_t *copy = malloc(size + 1);
	size_t len;

	memcpy(copy, data, size);
	forge_checksums(copy, size);
	s = state_reader(copy, size);
	walk(s, &f);
	if (state_result(s, &e) < 0) {
		assert(e.text[0] && e.code > 0);
	} else {
		/* What was accepted can be written and read again. */
		out = state_writer();
		walk(out, &f);
		state_free(s);
		s = state_reader(state_written(out, &len), len);
		walk(s, &f);
		assert(!state_failed(s));
		state_free(out);
	}
	state_free(s);
	free(copy);
	return 0;
}
