/* crashlog: a test aid: crashlog:LOG:FILE is FILE, and everything that changes it is recorded in
 * the file LOG, with a copy of FILE as it was before in LOG.base. From the two a test makes the
 * files that a power cut could have left (crash_replay.h).
 *
 * LOG is a row of records, each in the order in which it happened: a change when it begins (it
 * may be on the disk from then on) and when it is complete; a flush when it begins and when it
 * is complete: it covers the changes that were complete when it began. Host byte order: a log is
 * read by the test that made it. */
#pragma once

#include <stdint.h>

enum crash_kind {
	CRASH_WRITE,    /* at offset, len bytes that follow the record */
	CRASH_ZERO,     /* [offset, offset + len) */
	CRASH_DISCARD,  /* the same; may also have done nothing */
	CRASH_TRUNCATE, /* offset: the new size */
	CRASH_FLUSH,
	CRASH_COMPLETE, /* of record number offset; len: 0 it succeeded, 1 it failed */
};

struct crash_record {
	uint64_t kind, offset, len;
};
