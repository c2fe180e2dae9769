/* suboptions: the value of an option that has parts, "disk.img,format=raw,ro", into a plain
 * struct, by a table of the same kind as a command's options (options.h).
 *
 * Parts are separated by commas. "KEY=VALUE" is looked up in the table; a flag is "KEY",
 * "KEY=on" or "KEY=off". A comma that belongs to a value is written twice: "a,,b.img" is the
 * file a,b.img. The first part may be meant for the caller: a file name, or which kind of
 * thing the option makes ("user", "tap=tap0"). */
#pragma once

#include "cli/options.h"

/* table: ended by one without a name; of an option only name, kind, offset and value count.
 * first: NULL, or receives the first part as it stands (never empty: that is an error).
 * Texts point into *storage, which the caller frees when it is done with *into. On failure
 * *storage is untouched, and e says which part is wrong and what would be possible. */
WARN_UNUSED int suboptions_parse(const struct option *table, const char *text, const char **first,
				 void *into, char **storage, struct err *e);
