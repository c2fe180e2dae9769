/* scan_copies: holds what template.h copies against what the translator makes at the same address. */
#include "cpu/jit/scan_slow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/jit/core.h"

/* Far from the address that is scanned otherwise, and from each other; in one lane, so that nothing
 * is guessed otherwise there. */
#define COPY_FROM UINT64_C(0x550000000000)
#define COPY_TO   UINT64_C(0x551234567000)
/* Addresses whose upper bits are all set. */
#define COPY_UP_FROM UINT64_C(0xffffffff81000000)
#define COPY_UP_TO   UINT64_C(0xffffffffa1234000)

static struct jit_page *page_at(struct jit_cpu *c, uint64_t gva, gpa_t gpa)
{
	return jit_page_get(&c->vm->cache, gva, gpa, c->mode, c->cs);
}

static struct jit_block *translate_on(struct jit_cpu *c, struct jit_page *p, unsigned off)
{
	bool need_stop;

	return p ? jit_translate(c, p, p->gva | off, c->mode, &need_stop) : NULL;
}

/* Takes b, the last that was made, and its code back. */
static void unmake(struct jit_cache *k, struct jit_page *p, struct jit_block *b, uint8_t *cold)
{
	for (unsigned n = 0; n < PAGE_BUCKETS; n++)
		if (p->bucket[n] == jit_ref_to(k, b))
			p->bucket[n] = b->next;
	k->hot = b->start;
	k->cold = cold;
	k->arena_at = (uint8_t *)b;
	k->blocks--;
}

struct image {
	uint32_t hot, cold, block;
	uint8_t bytes[];
};

static struct image *image_of(const struct jit_cache *k, const struct jit_block *b,
			      const uint8_t *cold)
{
	uint32_t hot = (uint32_t)(k->hot - b->start), cold_len = (uint32_t)(k->cold - cold),
		 block = (uint32_t)(k->arena_at - (const uint8_t *)b);
	struct image *i = malloc(sizeof *i + hot + cold_len + block);

	if (!i)
		return NULL;
	*i = (struct image){b->hot_len, cold_len, block};
	memcpy(i->bytes, b->start, b->hot_len);
	memcpy(i->bytes + b->hot_len, cold, cold_len);
	memcpy(i->bytes + b->hot_len + cold_len, b, block);
	return i;
}

static bool same_image(const struct image *a, const struct image *b)
{
	return a->hot == b->hot && a->cold == b->cold && a->block == b->block &&
	       memcmp(a->bytes, b->bytes, a->hot + a->cold + a->block) == 0;
}

/* A copy of the block at gpa, made from `from` to `to`, is what the translator makes there, to
 * the last bit. */
static int copies(struct jit_cpu *c, gpa_t gpa, uint64_t from, uint64_t to, bool exact,
		  struct scan *s, struct err *e)
{
	struct jit_cache *k = &c->vm->cache;
	unsigned off = gpa & 0xfff;
	struct jit_page *source = page_at(c, from, gpa), *there = page_at(c, to, gpa);
	struct image *copied, *translated;
	uint8_t *cold;
	struct jit_block *b;
	int r;

	if (!there || !translate_on(c, source, off) || !translate_on(c, source, off))
		return 0; /* full */
	cold = k->cold;
	b = jit_template_copy(c, there, there->gva | off);
	if (!b)
		return 0;
	r = jit_scan_block(k, b, true, s, e);
	if (r < 0 || !exact)
		return r < 0 ? err_wrap(e, "a copy") : r;
	copied = image_of(k, b, cold);
	unmake(k, there, b, cold);
	b = translate_on(c, there, off);
	translated = b ? image_of(k, b, cold) : NULL;
	if (copied && translated && !same_image(copied, translated))
		r = err_set(e, EBADMSG, "a copy is not what the translator makes there");
	free(copied);
	free(translated);
	return r;
}

int jit_scan_copies(struct jit_cpu *c, gpa_t gpa, struct err *e)
{
	struct scan s;
	int r;

	if (!(c->mode & MODE_CODE64) || (gpa & 0xfff) > 4096 - 32)
		return 0;
	jit_stop(c, WORLD_OUT);
	r = copies(c, gpa, COPY_FROM, COPY_TO, true, &s, e);
	if (r == 0)
		r = copies(c, gpa, COPY_UP_FROM, COPY_UP_TO, false, &s, e);
	jit_go(c);
	return r;
}
