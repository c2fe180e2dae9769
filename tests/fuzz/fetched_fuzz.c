/* What servers of images send that is read here, not by a library: lists of checksums, and packed
 * streams whose end is where they say. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/inflate.h"
#include "image/pull.h"
#include "image/sums.h"

struct limited {
	struct inflate_sink sink;
	size_t left;
};

static int take(struct inflate_sink *s, const void *bytes, size_t len, struct err *e)
{
	struct limited *l = container_of(s, struct limited, sink);

	if (len > l->left)
		return err_set(e, 1, "enough");
	l->left -= len;
	return 0;
}

static void names(const uint8_t *data, size_t len)
{
	char *text = strndup((const char *)data, len), to[DIGEST_LEN_MAX + 1];
	char name[STORE_NAME_MAX + 1];

	if (!text)
		abort();
	if (sums_find(text, "disk", DIGEST_SHA256, to) && strlen(to) != DIGEST_LEN)
		abort();
	if (sums_find(text, "disk", DIGEST_SHA512, to) && strlen(to) != DIGEST_LEN_MAX)
		abort();
	pull_name(text, name);
	if (store_check_name("image", name, NULL) < 0)
		abort();
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct limited l = {{take}, 1 << 22};
	int fd = memfd_create("fetched", MFD_CLOEXEC);
	struct err e;

	if (fd < 0 || write(fd, data, len) != (ssize_t)len)
		abort();
	(void)!inflate_fd(fd, 0, len, &l.sink, NULL, &e);
	close(fd);
	names(data, len);
	return 0;
}
