/* convert: an image file from another one, as building, pulling and exporting need it. */
#pragma once

#include "block/jobs.h"

struct image_conversion {
	const char *from, *from_format; /* format NULL: by what the file begins with */
	const char *to, *to_format;
	bool compress;   /* a qcow2 */
	bool no_backing; /* from must stand alone: a foreign file could name any other of ours */
	bool no_lock;    /* from may be in use */
};

/* to is a new file, or is written over; not synced. */
WARN_UNUSED int image_convert(const struct image_conversion *c, struct block_progress *p,
			      struct err *e);
/* Opens a foreign image by itself, without what it may name as its backing image, and says how
 * large its disk is. -EINVAL: it has one. format: NULL, or what it must be. */
WARN_UNUSED int image_check_alone(const char *file, const char *format, uint64_t *size,
				  struct err *e);
