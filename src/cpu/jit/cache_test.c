#include "base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/jit/core.h"
#include "cpu/jit/perfmap_slow.h"

/* Blocks made by hand: their code is room for the jumps that linking and killing write. */
#define CODE  0x10000u /* a physical page */
#define OTHER 0x20000u
#define LEN   32 /* host bytes of an entry or a stub */

static const struct jit_cs flat = {0, 0xffffffff};
static struct guest_mem *mem;
static struct jit_cache k;
static struct err err;

static int setup(void **state)
{
	memset(&k, 0, sizeof k);
	return mem_new(&mem, MIB(1), &err) < 0 || jit_cache_init(&k, mem, JIT_CACHE_MIN, &err) < 0;
}

static int teardown(void **state)
{
	jit_cache_done(&k);
	mem_free(mem);
	return 0;
}

static uint8_t *take(uint8_t **from, unsigned len)
{
	uint8_t *p = *from;

	memset(p, 0x90, len);
	*from += len;
	return p;
}

static struct jit_page *page_at(uint64_t gva, gpa_t gpa)
{
	struct jit_page *p = jit_page_get(&k, gva, gpa, MODE_CODE64, flat);

	assert_non_null(p);
	return p;
}

static struct jit_block *block_at(struct jit_page *p, unsigned off, unsigned len)
{
	struct jit_block *b = jit_cache_alloc(&k, sizeof *b + sizeof(struct jit_edge));

	b->page = jit_ref_to(&k, p);
	b->gva = p->gva + off;
	b->guest_len = (uint16_t)len;
	b->start = take(&k.hot, 4 * LEN);
	b->guard = LEN;
	b->entry_s = 2 * LEN;
	b->entry_b = 3 * LEN;
	b->hot_len = 4 * LEN;
	b->stub = (uint32_t)(take(&k.cold, 2 * LEN) - k.rw);
	b->valid = true;
	if (off + len > 4096)
		b->page2 = jit_ref_to(&k, page_at(p->gva + 4096, p->gpa + 4096));
	jit_code_watch(&k, p->gpa);
	if (b->page2)
		jit_code_watch(&k, p->gpa + 4096);
	jit_block_claim(&k, b);
	jit_block_publish(&k, b);
	return b;
}

static uint8_t *jump_of(const struct jit_edge *e)
{
	return jit_edge_from(e)->start + e->jump;
}

static uint8_t *guard_of(const struct jit_block *b)
{
	return b->start + b->guard;
}

static uint8_t *entry_h_of(const struct jit_block *b)
{
	return b->start + b->entry_h;
}

static uint8_t *entry_s_of(const struct jit_block *b)
{
	return b->start + b->entry_s;
}

static uint8_t *entry_b_of(const struct jit_block *b)
{
	return b->start + b->entry_b;
}

/* Its one edge, to target, with flags where said. */
static struct jit_edge *edge_of(struct jit_block *b, const struct jit_block *target, uint8_t flags)
{
	struct jit_edge *e = jit_edges(b);
	struct emit ask = {0};

	*e = (struct jit_edge){
		.target = target->gva,
		.jump = b->entry_b + 20,
		.stub = (uint32_t)(take(&k.cold, 2 * LEN) - k.rw),
		.flags = flags & 3,
	};
	ask.p = jit_edge_stub(&k, e, true);
	jit_edge_ask(&k, e, &ask);
	e_patch(jump_of(e), jit_edge_stub(&k, e, false));
	b->edges = 1;
	return e;
}

static const uint8_t *leads_to(const uint8_t *rel32)
{
	int32_t d;

	memcpy(&d, rel32, 4);
	return rel32 + 4 + d;
}

static const uint8_t *jump_at(const uint8_t *p)
{
	assert_int_equal(*p, 0xe9);
	return leads_to(p + 1);
}

/* --- pages --- */

static void a_page_is_a_pair_in_one_mode(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE);
	const struct jit_cs based = {16, 0xffff};

	assert_ptr_equal(page_at(0x400abc, CODE + 0x123), p);
	assert_ptr_not_equal(page_at(0x401000, CODE), p);
	assert_ptr_not_equal(page_at(0x400000, OTHER), p);
	assert_ptr_not_equal(jit_page_get(&k, 0x400000, CODE, MODE_CODE32, flat), p);
	assert_ptr_not_equal(jit_page_get(&k, 0x400000, CODE, MODE_CODE64, based), p);
	assert_int_equal(k.next_id, 5);
	assert_int_equal(p->id, 1);
	assert_false(jit_code_on_page(&k, CODE));
}

static void blocks_are_found_by_guest_and_by_host_address(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE);
	struct jit_block *a = block_at(p, 0x10, 20), *b = block_at(p, 0x40, 5),
			 *same_bucket = block_at(p, 0x51, 1);

	assert_ptr_equal(jit_page_find(&k, p, 0x400010), a);
	assert_ptr_equal(jit_page_find(&k, p, 0x400040), b);
	assert_ptr_equal(jit_page_find(&k, p, same_bucket->gva), same_bucket);
	assert_null(jit_page_find(&k, p, 0x400011));
	assert_ptr_equal(jit_cache_find(&k, jit_rx(&k, a->start)), a);
	assert_ptr_equal(jit_cache_find(&k, jit_rx(&k, a->start + a->hot_len - 1)), a);
	assert_ptr_equal(jit_cache_find(&k, jit_rx(&k, b->start)), b);
	assert_null(jit_cache_find(&k, jit_rx(&k, a->start - 1)));
	assert_null(jit_cache_find(&k, jit_rx(&k, k.hot)));
	assert_null(jit_cache_find(&k, &k));
}

/* --- writes to code --- */

static void a_write_kills_only_the_blocks_that_it_hits(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE);
	struct jit_block *a = block_at(p, 60, 10), *b = block_at(p, 100, 4),
			 *c = block_at(p, 70, 4);

	assert_true(jit_code_overlaps(&k, CODE + 0, 1)); /* to 64 bytes */
	assert_true(jit_code_overlaps(&k, CODE + 127, 1));
	assert_false(jit_code_overlaps(&k, CODE + 128, 3968));
	assert_int_equal(jit_code_invalidate(&k, CODE + 59, 1), 0);
	assert_int_equal(jit_code_invalidate(&k, CODE + 74, 26), 0);
	assert_int_equal(jit_code_invalidate(&k, CODE + 69, 1), 1);
	assert_false(a->valid);
	assert_true(b->valid && c->valid);
	assert_null(jit_page_find(&k, p, a->gva));
	assert_false(jit_code_overlaps(&k, CODE, 64)); /* a was the only one there */
	assert_true(jit_code_overlaps(&k, CODE + 64, 1));
	assert_int_equal(jit_code_invalidate(&k, CODE + 64, 64), 2);
	assert_false(jit_code_on_page(&k, CODE));
}

static void a_write_kills_through_every_mapping(void **state)
{
	struct jit_block *a = block_at(page_at(0x400000, CODE), 0, 4),
			 *b = block_at(page_at(0x700000, CODE), 2, 4),
			 *other = block_at(page_at(0x400000, OTHER), 0, 4);

	assert_int_equal(jit_code_invalidate(&k, CODE + 3, 1), 2);
	assert_false(a->valid || b->valid);
	assert_true(other->valid);
}

static void a_block_on_two_pages_dies_from_either(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE);
	struct jit_block *b = block_at(p, 4090, 10), *c;

	assert_int_equal(k.straddlers, 1);
	assert_true(jit_code_overlaps(&k, CODE + 4096, 1));
	assert_false(jit_code_overlaps(&k, CODE + 4096 + 64, 1));
	assert_int_equal(jit_code_invalidate(&k, CODE + 4096 + 4, 8), 0);
	assert_true(jit_code_on_page(&k, CODE + 4096)); /* still */
	assert_int_equal(jit_code_invalidate(&k, CODE + 4096 + 3, 1), 1);
	assert_false(b->valid);
	assert_false(jit_code_on_page(&k, CODE + 4096));

	c = block_at(p, 4090, 10);
	assert_int_equal(jit_code_invalidate(&k, CODE + 4095, 1), 1);
	assert_false(c->valid);
	assert_int_equal(jit_code_invalidate(&k, CODE + 4096, 1), 0); /* not once more */
}

static void the_last_chunk_of_a_page(void **state)
{
	struct jit_block *b = block_at(page_at(0x400000, CODE), 4000, 96);

	assert_true(jit_code_overlaps(&k, CODE + 4000, 1));
	assert_true(jit_code_overlaps(&k, CODE + 4095, 1));
	assert_true(jit_code_overlaps(&k, CODE, 4096));
	assert_false(jit_code_overlaps(&k, CODE, 3968));
	assert_int_equal(jit_code_invalidate(&k, CODE, 4096), 1);
	assert_false(b->valid);
}

static void a_dead_block_leads_to_its_stubs(void **state)
{
	struct jit_block *b = block_at(page_at(0x400000, CODE), 0, 4);

	assert_int_equal(jit_code_invalidate(&k, CODE, 1), 1);
	assert_ptr_equal(jump_at(entry_h_of(b)), jit_block_stub(&k, b, false));
	assert_ptr_equal(jump_at(guard_of(b)), jit_block_stub(&k, b, true));
	assert_ptr_equal(jump_at(entry_s_of(b)), jit_block_stub(&k, b, true));
	assert_ptr_equal(jump_at(entry_b_of(b)), jit_block_stub(&k, b, true));
}

/* --- edges --- */

/* A new block at off of page p, and where its edge to block to is led when that is linked. */
static const uint8_t *linked_from(struct jit_page *p, unsigned off, uint8_t flags,
				  struct jit_block *to)
{
	struct jit_edge *e = edge_of(block_at(p, off, 4), to, flags);

	jit_edge_link(&k, e, to);
	return leads_to(jump_of(e));
}

static void flags_and_pages_choose_the_entry(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE), *q = page_at(0x500000, OTHER);
	struct jit_block *here = block_at(p, 0, 4), *there = block_at(q, 0, 4);

	assert_ptr_equal(linked_from(p, 100, FLAGS_SLOT, here), entry_s_of(here));
	assert_ptr_equal(linked_from(p, 110, FLAGS_SLOT, there), guard_of(there));
	assert_ptr_equal(linked_from(p, 120, FLAGS_HOST, there), entry_h_of(there));
	assert_ptr_equal(linked_from(p, 130, FLAGS_HOST, here), entry_h_of(here));
	there->flags_dead = here->flags_dead = true;
	assert_ptr_equal(linked_from(p, 140, FLAGS_HOST, there), guard_of(there));
	assert_ptr_equal(linked_from(p, 150, FLAGS_HOST, here), entry_s_of(here));
}

/* A loop has a way down, or back to itself; that polls. */
static void only_ways_up_on_a_page_do_not_poll(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE), *q = page_at(0x500000, OTHER);
	struct jit_block *up = block_at(p, 100, 4), *away = block_at(q, 100, 4);
	struct jit_edge *self = edge_of(up, up, FLAGS_SLOT);
	const uint8_t *to;

	assert_ptr_equal(linked_from(p, 0, FLAGS_SLOT, up), entry_b_of(up));
	assert_ptr_equal(linked_from(p, 200, FLAGS_SLOT, up), entry_s_of(up));
	assert_ptr_equal(linked_from(p, 10, FLAGS_SLOT, away), guard_of(away));
	jit_edge_link(&k, self, up);
	assert_ptr_equal(leads_to(jump_of(self)), entry_s_of(up));
	up->needs_host_flags = true;
	assert_ptr_equal(linked_from(p, 20, FLAGS_HOST | FLAGS_SLOT, up), entry_h_of(up));
	assert_ptr_equal(linked_from(p, 210, FLAGS_HOST | FLAGS_SLOT, up), entry_s_of(up));
	to = linked_from(p, 220, FLAGS_HOST, up);
	assert_ptr_equal(to,
			 jit_edge_stub(&k, jit_edges(jit_page_find(&k, p, p->gva + 220)), false));
}

static void a_write_to_bytes_that_were_looked_at_kills(void **state)
{
	struct jit_block *b = jit_cache_alloc(&k, sizeof *b), *c;
	struct jit_page *p = page_at(0x400000, CODE);

	c = block_at(p, 0, 4); /* its memory is of use here: a block like it that looked further */
	*b = *c;
	b->gva = p->gva + 16;
	b->start = take(&k.hot, 4 * LEN);
	b->peek_from = 300;
	b->peek_to = 310;
	jit_block_claim(&k, b);
	jit_block_publish(&k, b);
	assert_true(jit_code_overlaps(&k, CODE + 309, 1));
	assert_int_equal(jit_code_invalidate(&k, CODE + 310, 4), 0);
	assert_int_equal(jit_code_invalidate(&k, CODE + 309, 1), 1);
	assert_true(!b->valid && c->valid);
	assert_false(jit_code_overlaps(&k, CODE + 309, 1));
}

static void an_edge_that_must_save_flags_first_goes_through_its_stub(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE), *q = page_at(0x500000, OTHER);
	struct jit_block *a = block_at(p, 0, 4), *b = block_at(q, 0, 4);
	struct jit_edge *e = edge_of(a, b, FLAGS_HOST);
	const uint8_t *asks = leads_to(jit_edge_glue(&k, e));

	b->needs_host_flags = true;
	jit_edge_link(&k, e, b);
	assert_true(e->glued);
	assert_ptr_equal(leads_to(jump_of(e)), jit_edge_stub(&k, e, false));
	assert_ptr_equal(leads_to(jit_edge_glue(&k, e)), guard_of(b));
	assert_int_equal(jit_code_invalidate(&k, OTHER, 1), 1);
	assert_int_equal(e->to, 0);
	assert_ptr_equal(leads_to(jit_edge_glue(&k, e)), asks); /* as it was */
	assert_ptr_equal(leads_to(jump_of(e)), jit_edge_stub(&k, e, false));
}

static void a_dying_target_unlinks_its_edges(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE), *q = page_at(0x500000, OTHER);
	struct jit_block *a = block_at(p, 0, 4), *b = block_at(p, 100, 4), *to = block_at(q, 0, 4);
	struct jit_edge *e = edge_of(a, to, FLAGS_SLOT), *f = edge_of(b, to, FLAGS_HOST);

	jit_edge_link(&k, e, to);
	jit_edge_link(&k, f, to);
	assert_int_equal(jit_code_invalidate(&k, OTHER, 1), 1);
	assert_ptr_equal(leads_to(jump_of(e)), jit_edge_stub(&k, e, true));
	assert_ptr_equal(leads_to(jump_of(f)), jit_edge_stub(&k, f, false));
	assert_true(!e->to && !f->to && !to->in);

	to = block_at(q, 0, 4); /* and again */
	jit_edge_link(&k, e, to);
	assert_ptr_equal(leads_to(jump_of(e)), guard_of(to));
}

static void a_dying_source_leaves_its_targets_list(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE), *q = page_at(0x500000, OTHER);
	struct jit_block *a = block_at(p, 0, 4), *b = block_at(p, 100, 4), *to = block_at(q, 0, 4);
	struct jit_edge *e = edge_of(a, to, FLAGS_SLOT), *f = edge_of(b, to, FLAGS_SLOT);

	jit_edge_link(&k, e, to);
	jit_edge_link(&k, f, to);
	assert_int_equal(jit_code_invalidate(&k, CODE, 4), 1);
	assert_ptr_equal(jit_at(&k, to->in), f);
	assert_int_equal(f->next_in, 0);
	assert_int_equal(jit_code_invalidate(&k, OTHER, 4), 1);
	assert_ptr_equal(leads_to(jump_of(f)), jit_edge_stub(&k, f, true));
}

static void a_block_may_lead_to_itself(void **state)
{
	struct jit_block *a = block_at(page_at(0x400000, CODE), 0, 4);
	struct jit_edge *e = edge_of(a, a, FLAGS_SLOT);

	jit_edge_link(&k, e, a);
	assert_ptr_equal(leads_to(jump_of(e)), entry_s_of(a));
	assert_int_equal(jit_code_invalidate(&k, CODE, 1), 1);
	assert_ptr_equal(leads_to(jump_of(e)), jit_edge_stub(&k, e, true));
	assert_int_equal(a->in, 0);
}

static void dead_blocks_are_not_linked(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE);
	struct jit_block *a = block_at(p, 0, 4), *b = block_at(p, 100, 4);
	struct jit_edge *e = edge_of(a, b, FLAGS_SLOT);

	assert_int_equal(jit_code_invalidate(&k, CODE + 100, 1), 1);
	jit_edge_link(&k, e, b);
	assert_int_equal(e->to, 0);
	b = block_at(p, 100, 4);
	assert_int_equal(jit_code_invalidate(&k, CODE, 1), 1);
	jit_edge_link(&k, e, b);
	assert_int_equal(e->to, 0);
	assert_int_equal(b->in, 0);
}

/* --- the limit --- */

static void a_flush_forgets_everything(void **state)
{
	struct jit_page *p = page_at(0x400000, CODE);
	struct jit_block *b = block_at(p, 4090, 10);
	uint8_t *start = b->start;

	jit_cache_flush(&k);
	assert_int_equal(k.flushes, 1);
	assert_int_equal(k.blocks + k.straddlers, 0);
	assert_false(jit_code_on_page(&k, CODE) || jit_code_on_page(&k, CODE + 4096));
	assert_null(jit_cache_find(&k, jit_rx(&k, start)));
	p = page_at(0x400000, CODE);
	assert_int_equal(p->id, 1); /* ids start anew */
	assert_null(jit_page_find(&k, p, 0x400000 + 4090));
	assert_ptr_equal(block_at(p, 0, 1)->start, start);
}

static void a_full_cache_says_so(void **state)
{
	uint64_t pages = 0;

	while (jit_page_get(&k, pages << 12, CODE, MODE_CODE64, flat))
		pages++;
	assert_true(pages * sizeof(struct jit_page) <= JIT_CACHE_MIN);
	assert_true((pages + 2) * sizeof(struct jit_page) > JIT_CACHE_MIN);
	assert_null(jit_cache_alloc(&k, sizeof(struct jit_page)));
	jit_cache_flush(&k);
	assert_non_null(jit_page_get(&k, 0, CODE, MODE_CODE64, flat));
}

static void much_memory_is_given_back_when_flushed(void **state)
{
	uint8_t *last = NULL, *p;

	jit_cache_done(&k);
	memset(&k, 0, sizeof k);
	assert_int_equal(jit_cache_init(&k, mem, MIB(16), &err), 0);
	(void)block_at(page_at(0x400000, CODE), 0, 4);
	while ((p = jit_cache_alloc(&k, 4096)))
		*(last = p) = 1;
	jit_cache_flush(&k);
	assert_int_equal(*last, 0); /* a page that never was */
	assert_false(jit_code_on_page(&k, CODE));
}

static void sizes_out_of_bounds_are_refused(void **state)
{
	struct jit_cache other = {0};

	assert_true(jit_cache_init(&other, mem, JIT_CACHE_MIN - 1, &err) < 0);
	assert_true(jit_cache_init(&other, mem, JIT_CACHE_MAX + 1, &err) < 0);
}

static void a_profiler_is_told_what_code_was_made_from(void **state)
{
	char path[] = "/tmp/perfmap.XXXXXX", line[3][128] = {""}, expected[2][128];
	int fd = mkstemp(path);
	const struct jit_block *b;
	const uint8_t *cold;
	FILE *f;

	assert_true(fd >= 0);
	jit_cache_done(&k);
	memset(&k, 0, sizeof k);
	setenv("HOLON_PERF_MAP", path, 1);
	assert_int_equal(jit_cache_init(&k, mem, JIT_CACHE_MIN, &err), 0);
	unsetenv("HOLON_PERF_MAP");
	b = block_at(page_at(0x400000, CODE), 0x123, 0x2a);
	cold = k.rw + b->stub;
	jit_perfmap_block(&k, b, cold, cold + LEN);
	f = fdopen(fd, "r");
	for (unsigned n = 0; n < 3; n++)
		assert_non_null(fgets(line[n], sizeof line[n], f));
	fclose(f);
	unlink(path);
	assert_non_null(strstr(line[0], " thunks\n"));
	snprintf(expected[0], sizeof expected[0], "%lx %x kernel_400123_2a\n",
		 (unsigned long)jit_rx(&k, b->start), 4 * LEN);
	snprintf(expected[1], sizeof expected[1], "%lx %x kernel_400123_2a_cold\n",
		 (unsigned long)jit_rx(&k, cold), LEN);
	assert_string_equal(line[1], expected[0]);
	assert_string_equal(line[2], expected[1]);
}

static void a_map_that_cannot_be_written_is_an_error(void **state)
{
	struct jit_cache other = {0};

	setenv("HOLON_PERF_MAP", "/proc/none", 1);
	assert_true(jit_cache_init(&other, mem, JIT_CACHE_MIN, &err) < 0);
	unsetenv("HOLON_PERF_MAP");
	assert_non_null(strstr(err.text, "HOLON_PERF_MAP"));
	jit_cache_done(&other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_page_is_a_pair_in_one_mode),
		TEST(blocks_are_found_by_guest_and_by_host_address),
		TEST(a_write_kills_only_the_blocks_that_it_hits),
		TEST(a_write_kills_through_every_mapping),
		TEST(a_block_on_two_pages_dies_from_either),
		TEST(the_last_chunk_of_a_page),
		TEST(a_dead_block_leads_to_its_stubs),
		TEST(flags_and_pages_choose_the_entry),
		TEST(only_ways_up_on_a_page_do_not_poll),
		TEST(a_write_to_bytes_that_were_looked_at_kills),
		TEST(an_edge_that_must_save_flags_first_goes_through_its_stub),
		TEST(a_dying_target_unlinks_its_edges),
		TEST(a_dying_source_leaves_its_targets_list),
		TEST(a_block_may_lead_to_itself),
		TEST(dead_blocks_are_not_linked),
		TEST(a_flush_forgets_everything),
		TEST(a_full_cache_says_so),
		TEST(much_memory_is_given_back_when_flushed),
		TEST(sizes_out_of_bounds_are_refused),
		TEST(a_profiler_is_told_what_code_was_made_from),
		TEST(a_map_that_cannot_be_written_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
