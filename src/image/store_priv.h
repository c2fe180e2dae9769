/* store_priv: paths and small files of the store; see store.h. */
#pragma once

#include "image/store.h"

/* ROOT/A/B...; false when that is too long. */
__attribute__((format(printf, 4, 5))) bool store_path(const struct store *st, char *to, size_t len,
						      const char *fmt, ...);
WARN_UNUSED int make_dirs(const char *path, struct err *e);                   /* like mkdir -p */
WARN_UNUSED int write_json(const char *path, const json_t *j, struct err *e); /* atomic */
void remove_tree(const char *path);
