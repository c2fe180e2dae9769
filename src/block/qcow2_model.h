/* qcow2_model: an image on a disk in memory (qcow2_disk.h), and a flat copy of what it should
 * hold; random operations on both, side by side. For the unit tests of the qcow2 format. */
#pragma once

#include "block/qcow2_disk.h"
#include "block/qcow2_priv.h"

#define SECTOR  512u
#define LAYOUTS 11

struct past {                  /* a change of the disk */
	uint64_t first, count; /* sectors */
	bool zero;
	uint64_t begun, ended; /* moments of the disk's record */
};

struct model {
	struct block_ctx *ctx;
	struct disk disk;
	struct disk_image image, *backing;
	uint8_t *flat, *got;
	uint64_t size, rng;
	uint8_t *busy; /* per sector */
	bool aligned;  /* whole sectors only, and keep the past */
	bool retry;    /* what fails is tried again */
	struct past *past;
	unsigned past_count;
	struct past flush[256];
	unsigned flush_count;
	unsigned workers, ops; /* to be done */
	struct coro_queue idle;
};

extern const struct block_opts default_opts;
extern const struct block_create_opts layouts[LAYOUTS];

struct block_ctx *new_ctx(void);
uint64_t pick(struct model *m, uint64_t below);
void open_model(struct model *m, const struct block_opts *o);
void start_model(struct model *m, struct block_ctx *c, const struct block_create_opts *o,
		 uint64_t seed);
void end_model(struct model *m);
/* Each sector says which change it is of. */
void stamp(uint8_t *to, uint64_t offset, uint64_t len, uint32_t number);
void do_flush(struct model *m);
void do_write(struct model *m, uint64_t offset, uint64_t len);
/* Random operations by so many workers at once. */
void play(struct model *m, unsigned workers, unsigned ops);
void compare_all(struct model *m);
struct qcow2_check check_image(struct disk_image *i, enum qcow2_fix fix);
void assert_sound(struct model *m, bool leaks_too);
/* Closed, opened and checked. */
void reopen(struct model *m, bool leaks_too);
/* With large clusters all takes longer: less of it. */
unsigned rounds(const struct block_create_opts *o, unsigned n);
void resize(struct model *m, uint64_t size);
