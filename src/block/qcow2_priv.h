/* qcow2_priv: what the files of the qcow2 format share.
 *
 *   qcow2_header.c    header and extensions: bytes to struct and back, all checks on them
 *   qcow2_create.c    new images                 qcow2_open.c      open, close, driver table
 *   qcow2_cache.c     pages of L2 tables and refcount blocks
 *   qcow2_flush.c     the order in which metadata reaches the disk; space given back
 *   qcow2_refcount.c  refcounts and their tables qcow2_alloc.c     clusters handed out
 *   qcow2_l2.c        L1 and L2: lookup, entries qcow2_read.c      reading, map
 *   qcow2_write.c     writing, copy-on-write     qcow2_zero.c      zeros, discard
 *   qcow2_compress.c  compressed clusters        qcow2_snapshot.c  internal snapshots
 *   qcow2_resize.c    size, preallocation        qcow2_amend.c     changes of the header
 *   qcow2_check.c     counting, findings         qcow2_repair.c    refcounts made right
 *
 * All runs in coroutines of one thread. Code between two waits is atomic; what may wait says
 * so. Locks, outer to inner: q->lock (who changes the mapping or hands out clusters),
 * q->flush_lock (the checkpoint), q->header_lock (where the tables are). A checkpoint never
 * takes q->lock. Readers and writers of clusters that are there take none.
 *
 * The rules that make a crash harmless stand in qcow2_flush.c. */
#pragma once

#include "block/block_priv.h"
#include "block/qcow2.h"

#define QCOW2_MAGIC            0x514649fbu
#define QCOW2_MAX_L1_BYTES     MIB(32)
#define QCOW2_MAX_RT_BYTES     MIB(8)
#define QCOW2_MAX_SNAPSHOTS    65536u
#define QCOW2_MAX_SNAP_BYTES   MIB(16) /* of the snapshot table */
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_PAGE_BYTES       KIB(4) /* of the metadata cache; less where clusters are smaller */
#define QCOW2_HEADER_V2        72u
#define QCOW2_HEADER_V3        104u

#define QCOW2_DIRTY       BIT(0) /* incompatible features */
#define QCOW2_CORRUPT     BIT(1)
#define QCOW2_DATA_FILE   BIT(2)
#define QCOW2_COMPRESSION BIT(3)
#define QCOW2_EXTENDED_L2 BIT(4)
#define QCOW2_LAZY        BIT(0) /* compatible features */
#define QCOW2_BITMAPS     BIT(0) /* autoclear features */

#define QCOW2_COPIED      BIT(63) /* L1 and L2 entries */
#define QCOW2_COMPRESSED  BIT(62)
#define QCOW2_ZERO        BIT(0)
#define QCOW2_OFFSET_MASK (BIT(56) - BIT(9))

static inline uint64_t load_be64(const void *p)
{
	return __builtin_bswap64(load_le(p, 8));
}

static inline uint32_t load_be32(const void *p)
{
	return __builtin_bswap32((uint32_t)load_le(p, 4));
}

static inline void store_be64(void *p, uint64_t v)
{
	store_le(p, __builtin_bswap64(v), 8);
}

static inline void store_be32(void *p, uint32_t v)
{
	store_le(p, __builtin_bswap32(v), 4);
}

/* --- header --- */

struct qcow2_header {
	uint32_t version, backing_len, cluster_bits, crypt, l1_size, rt_clusters, snapshot_count;
	uint64_t backing_offset, size, l1_offset, rt_offset, snapshots_offset;
	uint64_t incompatible, compatible, autoclear;
	uint32_t refcount_order, header_len;
	uint8_t compression_type;
	/* extensions */
	uint64_t bitmaps_offset, bitmaps_bytes; /* of the directory; 0: none */
	uint32_t bitmap_count;
};

/* Where some fields lie in the file. */
enum {
	QCOW2_AT_BACKING = 8,
	QCOW2_AT_SIZE = 24,
	QCOW2_AT_L1 = 36, /* size, offset */
	QCOW2_AT_RT = 48, /* offset, clusters */
	QCOW2_AT_INCOMPATIBLE = 72,
	QCOW2_AT_COMPATIBLE = 80,
	QCOW2_AT_AUTOCLEAR = 88,
};

/* bytes: the file's beginning, up to one cluster. Fields only, each checked by itself and
 * against the others. file_bytes: the file's size. */
WARN_UNUSED int qcow2_header_parse(struct qcow2_header *h, const uint8_t *bytes, size_t len,
				   struct err *e);
/* The extensions behind the header, of which there are len bytes with it. backing_format:
 * malloc'ed or NULL. */
WARN_UNUSED int qcow2_extensions_parse(struct qcow2_header *h, const uint8_t *bytes, size_t len,
				       char **backing_format, struct err *e);
/* Builds a header with its extensions and the names of the backing file into to[0..room).
 * old: the cluster it replaces, whose other extensions and fields it keeps, or NULL. Returns
 * its length, or -errno. Fills h->backing_offset, backing_len and header_len. */
WARN_UNUSED int qcow2_header_build(struct qcow2_header *h, const uint8_t *old, size_t old_len,
				   const char *backing_file, const char *backing_format,
				   uint8_t *to, size_t room, struct err *e);
bool qcow2_probe(const uint8_t *head, uint64_t len);

struct qcow2;

/* --- pages of metadata --- */

struct qcow2_page {
	uint64_t offset; /* in the file */
	uint8_t *bytes;  /* as on the disk: big-endian */
	unsigned pins;   /* stays while there are any */
	bool loading, dirty, writing;
	struct qcow2_page *hash_next;
	struct qcow2_page *newer, *older;           /* ring by use */
	struct qcow2_page *dirty_prev, *dirty_next; /* ring of dirty pages */
	struct coro_queue waiters;                  /* for the end of loading or writing */
};

struct qcow2_cache {
	struct qcow2 *q;
	size_t page_bytes;
	unsigned max, count, hash_mask, writing;
	bool ordered; /* L2: a dirty page leaves through a checkpoint only */
	struct qcow2_page **hash;
	struct qcow2_page ring, dirty; /* heads */
};

WARN_UNUSED int qcow2_cache_init(struct qcow2_cache *c, struct qcow2 *q, size_t page_bytes,
				 uint64_t bound_bytes, bool ordered);
void qcow2_cache_done(struct qcow2_cache *c);
/* The page at offset if it is there: valid until the next wait. */
struct qcow2_page *qcow2_cache_find(struct qcow2_cache *c, uint64_t offset);
/* Pins it; may wait. */
WARN_UNUSED int qcow2_page_get(struct qcow2_cache *c, uint64_t offset, struct qcow2_page **out);
/* The same of a page that the file has not yet: zeros. */
WARN_UNUSED int qcow2_page_new(struct qcow2_cache *c, uint64_t offset, struct qcow2_page **out);
void qcow2_page_put(struct qcow2_page *p);
void qcow2_page_dirty(struct qcow2_cache *c, struct qcow2_page *p);
void qcow2_page_clean(struct qcow2_page *p);
/* Forgets what there is of [offset, offset + len): the space has another use. */
void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset, uint64_t len);
/* Writes dirty pages and waits for those being written. Unordered caches only. */
WARN_UNUSED int qcow2_cache_write(struct qcow2_cache *c);

/* --- the image --- */

struct qcow2_run { /* bytes of the file */
	uint64_t offset, len;
	bool table, compressed;
};
struct qcow2_runs {
	struct qcow2_run *run;
	size_t count, room;
};

/* A write that has clusters, but is not in the L2 table yet. [start, end) of the guest's
 * disk, whole clusters: who wants to change any of these waits. */
struct qcow2_flight {
	uint64_t start, end;
	struct qcow2_flight *next;
	struct coro_queue waiters;
};

struct qcow2 {
	struct block *b;
	struct proto *p;
	struct coros *coros;
	struct qcow2_header h;
	uint64_t cluster_bytes, page_bytes;
	unsigned cluster_bits, l2_bits; /* l2_bits: log2 of the entries of a table */
	unsigned entry_bytes;           /* of an L2 entry: 8, or 16 when extended */
	unsigned sub_bits;              /* log2 of a subcluster's bytes; cluster_bits without */
	bool extended;
	bool at_snapshot; /* reads an internal snapshot */
	bool read_only;   /* also after a corruption was met */
	bool write_begun; /* header says that it is being written */
	bool order; /* dirty L2 or L1 refers to clusters whose contents may not be on the disk */

	uint64_t *l1;      /* host order */
	uint8_t *l1_dirty; /* one per sector of the table */
	unsigned l1_dirty_count;
	uint64_t *rt; /* host order */
	uint32_t rt_entries;
	struct qcow2_cache l2, rb;

	struct coro_mutex lock, flush_lock, header_lock;
	bool header_unsure; /* or the refcount table: see qcow2_header_settle */
	struct qcow2_flight *flights;

	uint64_t free_hint; /* no free cluster (index) below it */
	uint64_t frees;     /* counts clusters that became free */
	uint64_t virgin;    /* no byte of the file from here on was ever written */
	bool sparse;        /* the file grows without taking space */
	uint64_t used_end;  /* end of the last cluster handed out, or of the file as opened */
	uint64_t packed_at; /* where the next compressed cluster may begin; 0: nowhere */

	uint64_t checkpoints_begun, checkpoint_good; /* numbers */
	struct qcow2_runs pending, closing, ready;   /* to be freed: see qcow2_flush.c */
	bool reclaiming;
	struct coro_queue reclaim_waiters;
	unsigned io_gen, io_count[2];
	struct coro_queue io_waiters;
	unsigned pieces; /* coroutines that read parts of requests */

	struct qcow2_snapshot *snapshots;
	struct qcow2_l1_ref *snapshot_l1;
	uint64_t snapshots_bytes; /* of their table */

	uint8_t *unpacked;                     /* last cluster that was decompressed */
	uint64_t unpacked_entry, unpack_epoch; /* 0: none; counts what makes it invalid */
};

struct qcow2_l1_ref {
	uint64_t offset;
	uint32_t size;
};

static inline struct qcow2 *qcow2_of(struct block *b)
{
	return b->state;
}

/* Data I/O that was looked up is between these, with no wait since the lookup: clusters that
 * were freed in the meantime are not reused before it ends. */
static inline unsigned qcow2_io_enter(struct qcow2 *q)
{
	q->io_count[q->io_gen]++;
	return q->io_gen;
}
void qcow2_io_leave(struct qcow2 *q, unsigned gen);

/* Marks the image as being written, on the disk, once. Before any change; may wait. */
WARN_UNUSED int qcow2_begin_write(struct qcow2 *q);
/* The image contradicts itself: marks it corrupt and read-only; returns -EIO. May wait. */
int qcow2_corrupt(struct qcow2 *q);
/* Overwrites part of the header: one sector, so it is there or not. May wait; no flush. */
WARN_UNUSED int qcow2_header_update(struct qcow2 *q, unsigned at, const void *bytes, size_t len);

/* The same of the fields that say where L1 or the refcount table is, with a flush: memory
 * follows when it succeeds. When it fails, the old value is written again; when that fails, too,
 * the disk may name either table, and both stay until settle has succeeded. */
WARN_UNUSED int qcow2_header_switch(struct qcow2 *q, unsigned at, const void *bytes, size_t len);
/* Writes these fields and the refcount table again, if the disk may have other values than
 * memory after a failure. No checkpoint succeeds, and no block is made, before. */
WARN_UNUSED int qcow2_header_settle(struct qcow2 *q);

/* --- flush --- */

WARN_UNUSED int qcow2_checkpoint(struct qcow2 *q);
/* Frees what checkpoints made ready; may wait. */
WARN_UNUSED int qcow2_reclaim(struct qcow2 *q);
/* [offset, offset + len) of the file is not referenced any more, once the change of L1 or L2
 * just made is on the disk. Does not fail: without memory, the space leaks. */
void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len, bool table, bool compressed);
/* When too much is to be freed: a checkpoint and a reclaim now. Without q->lock. */
WARN_UNUSED int qcow2_free_pressure(struct qcow2 *q);
void qcow2_l1_set(struct qcow2 *q, uint32_t index, uint64_t entry); /* dirty */
int qcow2_flush(struct block *b);

/* --- refcounts; under q->lock unless said otherwise --- */

uint64_t qcow2_refcount_load(const uint8_t *bytes, unsigned order, uint64_t index);
void qcow2_refcount_store(uint8_t *bytes, unsigned order, uint64_t index, uint64_t value);
static inline uint64_t qcow2_refcount_max(unsigned order)
{
	return order == 6 ? UINT64_MAX : BIT(1u << order) - 1;
}
/* log2 of the entries of a refcount block */
static inline unsigned qcow2_rb_bits(const struct qcow2 *q)
{
	return q->cluster_bits + 3 - q->h.refcount_order;
}
/* Pins the page with the refcount of cluster; *at is its index there. *out is NULL where no
 * block is. Needs no lock. */
WARN_UNUSED int qcow2_refcount_page(struct qcow2 *q, uint64_t cluster, struct qcow2_page **out,
				    uint64_t *at);
WARN_UNUSED int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out);
/* delta: +1 or -1. Needs no lock. */
WARN_UNUSED int qcow2_refcount_change(struct qcow2 *q, uint64_t cluster, int delta);
/* Makes the block that holds cluster's refcount. */
WARN_UNUSED int qcow2_refcount_grow(struct qcow2 *q, uint64_t cluster);
/* All of the table. */
WARN_UNUSED int qcow2_refcount_rewrite(struct qcow2 *q);
/* Makes blocks for a run of clusters, all of them free, longer than what one block counts. */
WARN_UNUSED int qcow2_refcount_grow_run(struct qcow2 *q, uint64_t clusters, uint64_t *first);

/* --- clusters handed out; under q->lock; refcount 1 --- */

/* 1 .. want clusters side by side. *virgin: all read as zeros. */
WARN_UNUSED int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *offset, uint64_t *got,
			    bool *virgin);
WARN_UNUSED int qcow2_alloc_exact(struct qcow2 *q, uint64_t clusters, uint64_t *offset);
/* Room for a compressed cluster; the refcounts are counted up. */
WARN_UNUSED int qcow2_alloc_bytes(struct qcow2 *q, uint64_t len, uint64_t *offset);
/* Clusters that nothing on the disk or in memory refers to. Needs no lock. */
void qcow2_free_now(struct qcow2 *q, uint64_t offset, uint64_t len);
/* Does the range touch header, L1, refcount table or snapshot table? */
bool qcow2_overlaps_fixed(const struct qcow2 *q, uint64_t offset, uint64_t len);
/* For a new table whose place was chosen elsewhere. */
WARN_UNUSED int qcow2_claim(struct qcow2 *q, uint64_t offset, uint64_t len, bool *virgin);

/* --- mapping --- */

enum qcow2_kind { QCOW2_ABSENT, QCOW2_ZEROS, QCOW2_DATA, QCOW2_PACKED };

struct qcow2_extent {
	enum qcow2_kind kind;
	bool copied;   /* host cluster is this image's alone: may be written in place */
	uint64_t len;  /* bytes of the guest's disk */
	uint64_t host; /* of the first byte; 0: no host cluster. PACKED: the L2 entry */
};
/* What the disk has from offset on, up to max bytes, of one kind and side by side on the
 * host. Waits only when the page is not in the cache. */
WARN_UNUSED int qcow2_lookup(struct qcow2 *q, uint64_t offset, uint64_t max,
			     struct qcow2_extent *x);

struct qcow2_entry {
	uint64_t l2, bitmap; /* bitmap: 0 unless extended */
};
struct qcow2_entry qcow2_entry_load(const struct qcow2 *q, const struct qcow2_page *p,
				    unsigned index);
void qcow2_entry_store(struct qcow2 *q, struct qcow2_page *p, unsigned index,
		       struct qcow2_entry entry); /* and dirty */
/* -EIO when it makes no sense. */
WARN_UNUSED int qcow2_entry_check(const struct qcow2 *q, struct qcow2_entry entry);
enum qcow2_kind qcow2_entry_kind(const struct qcow2 *q, struct qcow2_entry entry, unsigned sub);
/* Bytes of the file that a compressed entry names. */
struct qcow2_run qcow2_packed_run(const struct qcow2 *q, uint64_t l2);
/* Frees later what the entry refers to. */
void qcow2_entry_drop(struct qcow2 *q, struct qcow2_entry entry);
/* Index of offset's entry within its page, and how many follow it there, itself included. */
unsigned qcow2_page_index(const struct qcow2 *q, uint64_t offset);
unsigned qcow2_page_entries(const struct qcow2 *q);
/* Pins the page with offset's entry for reading; NULL: no table. */
WARN_UNUSED int qcow2_l2_get(struct qcow2 *q, uint64_t offset, struct qcow2_page **out);
/* For changing it: the table is made, or copied when a snapshot has it too. Under q->lock. */
WARN_UNUSED int qcow2_l2_get_own(struct qcow2 *q, uint64_t offset, struct qcow2_page **out);

/* --- data --- */

int qcow2_readv(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		uint64_t len);
WARN_UNUSED int qcow2_read_bytes(struct qcow2 *q, uint64_t offset, void *to, uint64_t len);
int qcow2_writev(struct block *b, uint64_t offset, const struct iovec *iov, unsigned n,
		 uint64_t len);
int qcow2_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out);
int qcow2_zero(struct block *b, uint64_t offset, uint64_t len, bool unmap);
int qcow2_discard(struct block *b, uint64_t offset, uint64_t len);
/* No backing data there: absent reads as zeros. */
bool qcow2_backing_is_zero(const struct qcow2 *q, uint64_t offset);
/* Takes q->lock with no flight over [start, *end); shortens *end before one that begins
 * later. start, *end: whole clusters. */
void qcow2_lock_range(struct qcow2 *q, uint64_t start, uint64_t *end);
void qcow2_flight_begin(struct qcow2 *q, struct qcow2_flight *f, uint64_t start, uint64_t end);
void qcow2_flight_end(struct qcow2 *q, struct qcow2_flight *f);

WARN_UNUSED int qcow2_read_packed(struct qcow2 *q, uint64_t l2, uint64_t skip,
				  const struct iovec *iov, unsigned n, uint64_t len);

/* --- the rest --- */

WARN_UNUSED int qcow2_snapshots_load(struct qcow2 *q, struct err *e);
void qcow2_snapshots_free(struct qcow2 *q);
/* Makes the snapshot's L1 the one to read from. */
WARN_UNUSED int qcow2_snapshot_select(struct qcow2 *q, const char *name, struct err *e);
WARN_UNUSED int qcow2_table_read(struct qcow2 *q, uint64_t offset, uint32_t entries, uint64_t **out,
				 struct err *e);
int qcow2_resize(struct block *b, uint64_t size, enum block_prealloc prealloc, struct err *e);
int qcow2_create(struct proto *p, const struct block_create_opts *o, struct err *e);
/* Gives [offset, offset + len) host clusters. */
WARN_UNUSED int qcow2_preallocate(struct qcow2 *q, uint64_t offset, uint64_t len,
				  enum block_prealloc how);
/* In a coroutine. */
WARN_UNUSED int qcow2_check_run(struct qcow2 *q, enum qcow2_fix fix, struct qcow2_check *r,
				struct err *e);

/* What of an image refers to each cluster, counted by walking it. */
struct qcow2_count {
	struct qcow2 *q;
	struct qcow2_check *r;
	uint32_t *n; /* of cluster i */
	uint64_t clusters;
	bool rebuild;       /* the refcount table or a block is broken */
	uint64_t leaks_end; /* clusters up to the last one that stays leaked */
};
/* Shows each page of an L2 table to visit; one that cannot be read is counted as an error. */
WARN_UNUSED int qcow2_count_l2(struct qcow2_count *c, uint64_t table,
			       void (*visit)(struct qcow2_count *c, struct qcow2_page *p,
					     void *arg),
			       void *arg);
/* All but the refcount table and its blocks. */
WARN_UNUSED int qcow2_count_users(struct qcow2_count *c, struct err *e);
__attribute__((format(printf, 2, 3))) void qcow2_report(struct qcow2_check *r, const char *fmt,
							...);
/* New refcount table and blocks from c's counts, behind all else. */
WARN_UNUSED int qcow2_rebuild(struct qcow2_count *c, struct err *e);
/* Sets refcounts to c's counts where they differ, as far as fix says, and counts findings. */
WARN_UNUSED int qcow2_compare_counts(struct qcow2_count *c, enum qcow2_fix fix);
/* COPIED of the active tables says whether the count is 1. */
WARN_UNUSED int qcow2_check_copied(struct qcow2_count *c, enum qcow2_fix fix);

/* What qcow2_write_compressed (qcow2.h) does. */
WARN_UNUSED int qcow2_write_compressed_in_coro(struct block *b, uint64_t offset, const void *from,
					       uint64_t len);
