/* smbios: what the machine says of itself to management software (DMTF DSP0134, version 3.0): who
 * made it, its own identifier, processors and memory. Each structure is a head, fields, and its
 * strings, which fields name by number.
 *
 * The identifier is made from the VM's name, so that a VM keeps it, as it keeps its MAC address. */
#include <errno.h>
#include <string.h>

#include "boot/boot_priv.h"

#define ENTRY_AT  0xf2000u /* where a kernel without firmware looks: each 16 bytes from 0xf0000 on */
#define TABLES_AT (ENTRY_AT + 32)
#define MAJOR     3
#define OTHER     1
#define SAFE      3 /* states of a chassis */

#define BIOS      0
#define SYSTEM    1
#define CHASSIS   3
#define PROCESSOR 4
#define ARRAY     16
#define MODULE    17
#define MAPPED    19
#define BOOT      32
#define END       127

#define HANDLE(type, n) ((uint16_t)((type) << 8 | (n)))
#define NONE            0xfffe

/* A cursor; begin() has the head written, string() and end() what comes after the fields. */
struct writer {
	struct smbios *s;
	uint8_t *fields; /* of the structure being written */
	uint8_t strings;
};

static uint8_t *begin(struct writer *w, uint8_t type, unsigned n, uint8_t len)
{
	uint8_t *f = w->s->tables + w->s->len;

	memset(f, 0, len);
	f[0] = type;
	f[1] = len;
	store_le(f + 2, HANDLE(type, n), 2);
	w->s->len += len;
	w->fields = f;
	w->strings = 0;
	return f;
}

/* The field at that offset names it; a text of no bytes would be the end of them all. */
static void string(struct writer *w, unsigned field, const char *text)
{
	size_t len = strnlen(text, SMBIOS_NAME_MAX);

	if (!len)
		return;
	memcpy(w->s->tables + w->s->len, text, len);
	w->s->tables[w->s->len + len] = 0;
	w->s->len += (uint32_t)len + 1;
	w->fields[field] = ++w->strings;
}

static void end(struct writer *w)
{
	for (unsigned zeros = w->strings ? 1 : 2; zeros; zeros--)
		w->s->tables[w->s->len++] = 0;
}

/* --- the identifier --- */

/* FNV-1a, begun with what is so far. */
static uint64_t hash(uint64_t h, const char *text)
{
	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
	return h ^ h >> 29;
}

void smbios_uuid(const char *name, uint8_t to[16])
{
	uint64_t first = hash(UINT64_C(0xcbf29ce484222325), name);

	store_le(to, first, 8);
	store_le(to + 8, hash(first * UINT64_C(0x9e3779b97f4a7c15), name), 8);
	to[7] = (to[7] & 0x0f) | 0x80; /* version 8: of one's own making (RFC 9562) */
	to[8] = (to[8] & 0x3f) | 0x80;
}

/* --- structures --- */

static void bios(struct writer *w)
{
	uint8_t *f = begin(w, BIOS, 0, 0x18);

	store_le(f + 6, 0xf000, 2);  /* segment of its last 64 KiB */
	store_le(f + 0x0a, 0x08, 8); /* no characteristics */
	f[0x13] = 0x10;              /* this is a virtual machine */
	f[0x14] = 1;                 /* version 1.0, as below */
	f[0x16] = f[0x17] = 0xff;
	string(w, 4, "Holon");
	string(w, 5, "1.0");
	string(w, 8, "01/01/2026");
	end(w);
}

static void system_info(struct writer *w, const char *name)
{
	uint8_t *f = begin(w, SYSTEM, 0, 0x1b);

	smbios_uuid(name, f + 8);
	f[0x18] = 6; /* it was switched on */
	string(w, 4, "Holon");
	string(w, 5, "Holon");
	string(w, 6, "1.0");
	string(w, 7, name);
	string(w, 0x1a, "Virtual Machine");
	end(w);
}

static void chassis(struct writer *w)
{
	uint8_t *f = begin(w, CHASSIS, 0, 0x16);

	f[5] = OTHER;
	f[9] = f[0x0a] = f[0x0b] = SAFE;
	f[0x0c] = SAFE; /* no security */
	string(w, 4, "Holon");
	string(w, 6, "1.0");
	end(w);
}

static void processor(struct writer *w, unsigned cpus)
{
	uint8_t *f = begin(w, PROCESSOR, 0, 0x30);
	uint8_t few = (uint8_t)min_u64(cpus, 255);

	f[5] = 3; /* a central processor */
	f[6] = OTHER;
	f[0x18] = 0x41; /* there, and on */
	f[0x19] = OTHER;
	store_le(f + 0x1a, 0xffff, 2); /* no caches are told of */
	store_le(f + 0x1c, 0xffff, 2);
	store_le(f + 0x1e, 0xffff, 2);
	f[0x23] = f[0x24] = f[0x25] = few; /* cores, those on, threads */
	store_le(f + 0x26, 0x0c, 2);       /* 64 bits, more than one core */
	store_le(f + 0x28, OTHER, 2);
	store_le(f + 0x2a, cpus, 2);
	store_le(f + 0x2c, cpus, 2);
	store_le(f + 0x2e, cpus, 2);
	string(w, 4, "CPU 0");
	string(w, 7, "Holon");
	end(w);
}

static void memory(struct writer *w, const struct guest_mem *m)
{
	const struct mem_region *r;
	unsigned regions = mem_regions(m, &r);
	uint64_t mib = mem_size(m) >> 20;
	uint8_t *f = begin(w, ARRAY, 0, 0x17);

	f[4] = OTHER;
	f[5] = 3; /* for the system */
	f[6] = 2; /* whether errors are corrected is unknown */
	store_le(f + 7, 0x80000000u, 4);
	store_le(f + 0x0b, NONE, 2);
	store_le(f + 0x0d, 1, 2);
	store_le(f + 0x0f, mem_size(m), 8);
	end(w);

	f = begin(w, MODULE, 0, 0x28);
	store_le(f + 4, HANDLE(ARRAY, 0), 2);
	store_le(f + 6, NONE, 2);
	store_le(f + 8, 0xffff, 2);
	store_le(f + 0x0a, 0xffff, 2);
	store_le(f + 0x0c, mib < 0x7fff ? mib : 0x7fff, 2); /* else see below */
	store_le(f + 0x1c, mib < 0x7fff ? 0 : mib, 4);
	f[0x0e] = 9; /* a DIMM */
	f[0x12] = 7; /* RAM */
	store_le(f + 0x13, BIT(1), 2);
	string(w, 0x10, "DIMM 0");
	string(w, 0x17, "Holon");
	end(w);

	for (unsigned i = 0; i < regions; i++) {
		f = begin(w, MAPPED, i, 0x1f);
		store_le(f + 4, r[i].gpa >> 10, 4);
		store_le(f + 8, ((r[i].gpa + r[i].size) >> 10) - 1, 4);
		if (r[i].gpa + r[i].size >
		    (UINT64_C(0xffffffff) << 10)) { /* KiB are too small a unit */
			store_le(f + 4, 0xffffffff, 4);
			store_le(f + 8, 0xffffffff, 4);
			store_le(f + 0x0f, r[i].gpa, 8);
			store_le(f + 0x17, r[i].gpa + r[i].size - 1, 8);
		}
		store_le(f + 0x0c, HANDLE(ARRAY, 0), 2);
		f[0x0e] = 1;
		end(w);
	}
}

static void boot_info(struct writer *w)
{
	begin(w, BOOT, 0, 0x0b); /* no errors */
	end(w);
	begin(w, END, 0, 4);
	end(w);
}

/* --- */

static void put_anchor(struct smbios *s, gpa_t at)
{
	uint8_t *a = s->anchor, sum = 0;

	memset(a, 0, sizeof s->anchor);
	memcpy(a, "_SM3_", 5);
	a[6] = SMBIOS_ANCHOR_LEN;
	a[7] = MAJOR;
	a[0x0a] = 1; /* of this form of the anchor */
	store_le(a + 0x0c, s->len, 4);
	store_le(a + 0x10, at, 8);
	for (unsigned i = 0; i < SMBIOS_ANCHOR_LEN; i++)
		sum += a[i];
	a[5] = (uint8_t)-sum;
}

static void build(struct smbios *s, const struct guest_mem *m, const char *name, unsigned cpus,
		  bool with_bios, gpa_t at)
{
	struct writer w = {.s = s};

	s->len = 0;
	if (with_bios)
		bios(&w);
	system_info(&w, name ? name : "");
	chassis(&w);
	processor(&w, cpus);
	memory(&w, m);
	boot_info(&w);
	put_anchor(s, at);
}

void smbios_build(struct smbios *s, const struct guest_mem *m, const char *name, unsigned cpus)
{
	build(s, m, name, cpus, false, 0);
}

int smbios_place(struct guest_mem *m, const char *name, unsigned cpus, struct err *e)
{
	struct smbios s;

	build(&s, m, name, cpus, true, TABLES_AT);
	if (mem_write(m, TABLES_AT, s.tables, s.len) < 0 ||
	    mem_write(m, ENTRY_AT, s.anchor, sizeof s.anchor) < 0)
		return err_set(e, ENOMEM, "a machine needs at least 1 MiB of memory");
	return 0;
}
