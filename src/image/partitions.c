#include "image/partitions.h"

#include <stdbool.h>
#include <string.h>

#define SECTOR    512u
#define GPT_ENTRY 128u

/* Adds [first, first + count) sectors where that is on the disk. */
static unsigned add(const struct disk_source *s, struct partition *to, unsigned n, uint64_t first,
		    uint64_t count)
{
	uint64_t sectors = s->size / SECTOR;

	if (n == PARTITIONS_MAX || !count || !first || first >= sectors || count > sectors - first)
		return n;
	to[n] = (struct partition){first * SECTOR, count * SECTOR};
	return n + 1;
}

static int read_gpt(struct disk_source *s, struct partition *to)
{
	uint8_t head[SECTOR], entry[GPT_ENTRY];
	static const uint8_t unused[16];
	unsigned n = 0, count;
	uint64_t table;
	int r = s->read(s, SECTOR, head, sizeof head);

	if (r < 0)
		return r;
	if (memcmp(head, "EFI PART", 8) != 0 || load_le(head + 84, 4) != GPT_ENTRY)
		return 0;
	table = load_le(head + 72, 8);
	count = (unsigned)load_le(head + 80, 4);
	if (table > s->size / SECTOR)
		return 0;
	for (unsigned i = 0; i < count && i < PARTITIONS_MAX; i++) {
		uint64_t at = table * SECTOR + i * GPT_ENTRY, first, last;

		if (at > s->size - GPT_ENTRY)
			break;
		if ((r = s->read(s, at, entry, sizeof entry)) < 0)
			return r;
		first = load_le(entry + 32, 8);
		last = load_le(entry + 40, 8);
		if (memcmp(entry, unused, 16) != 0 && last >= first && last != UINT64_MAX)
			n = add(s, to, n, first, last - first + 1);
	}
	return (int)n;
}

int partitions_read(struct disk_source *s, struct partition to[PARTITIONS_MAX])
{
	uint8_t mbr[SECTOR];
	unsigned n = 0;
	int r;

	if (s->size < 4 * SECTOR)
		return 0;
	if ((r = s->read(s, 0, mbr, sizeof mbr)) < 0)
		return r;
	if (mbr[510] != 0x55 || mbr[511] != 0xaa)
		return 0;
	for (unsigned i = 0; i < 4; i++) {
		const uint8_t *entry = mbr + 446 + 16 * i;

		if (entry[4] == 0xee)
			return read_gpt(s, to);
		if (entry[4])
			n = add(s, to, n, load_le(entry + 8, 4), load_le(entry + 12, 4));
	}
	return (int)n;
}
