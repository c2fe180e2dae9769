/* perfmap: see the header. Names are MODE_GVA_GUESTBYTES, and _cold for slow paths and exits. */
#include "cpu/jit/perfmap_slow.h"

#include <errno.h>
#include <stdlib.h>

#include "cpu/jit/cache.h"

int jit_perfmap_open(FILE **out, struct err *e)
{
	const char *path = getenv("HOLON_PERF_MAP");
	FILE *f = NULL;

	if (path && *path) {
		f = fopen(path, "we");
		if (!f)
			return err_sys(e, errno, "HOLON_PERF_MAP: open '%s'", path);
		setvbuf(f, NULL, _IOLBF, 0); /* whole lines, whenever it is read */
	}
	*out = f;
	return 0;
}

static void put(const struct jit_cache *k, const uint8_t *from, const uint8_t *to, const char *name)
{
	if (from < to)
		fprintf(k->perfmap, "%lx %lx %s\n", (unsigned long)jit_rx(k, from),
			(unsigned long)(to - from), name);
}

void jit_perfmap_thunks(const struct jit_cache *k)
{
	if (!k->perfmap)
		return;
	put(k, k->rw, k->hot_start, "thunks");
}

void jit_perfmap_block(const struct jit_cache *k, const struct jit_block *b, const uint8_t *cold,
		       const uint8_t *cold_end)
{
	const struct jit_page *p = jit_at(k, b->page);
	char name[64];
	const char *mode;

	if (!k->perfmap)
		return;
	mode = p->mode & MODE_STEP ? "step" : p->mode & MODE_USER ? "user" : "kernel";
	snprintf(name, sizeof name, "%s_%lx_%x", mode, (unsigned long)b->gva, b->guest_len);
	put(k, b->start, b->start + b->hot_len, name);
	snprintf(name, sizeof name, "%s_%lx_%x_cold", mode, (unsigned long)b->gva, b->guest_len);
	put(k, cold, cold_end, name);
}
