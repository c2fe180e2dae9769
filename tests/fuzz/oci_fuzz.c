/* Images for containers as anybody may make them. The first byte says what the rest is: layers one
 * above the other, whose tree is written as a file system; one of the documents; a reference. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "oci/mkext.h"
#include "oci/source.h"

#define LAYERS 2

static void layers(const uint8_t *data, size_t len)
{
	int fd = memfd_create("layers", MFD_CLOEXEC), fds[LAYERS] = {fd, fd};
	char disk[] = "/dev/shm/oci_fuzz.XXXXXX";
	struct mkext_opts o = {.file = disk, .room = 8 << 20, .layer = fds};
	uint64_t half = align_down(len / 2, 512), bytes = 0;
	struct tree *t;
	struct err e;

	if (fd < 0 || write(fd, data, len) != (ssize_t)len || tree_new(&t, &e) < 0)
		abort();
	for (unsigned i = 0; i < LAYERS; i++) {
		struct tar_entry x;
		struct tar *a;

		if (tar_open(&a, fd, i ? half : 0, i ? len - half : half, &e) < 0)
			abort();
		while (tar_next(a, &x, &e) == 1 && tree_apply(t, i, &x, &e) == 0)
			bytes += x.size;
		tar_close(a);
	}
	if (bytes < 1 << 20) {
		int made = mkstemp(disk);

		if (made < 0)
			abort();
		close(made);
		(void)!mkext(t, &o, &e);
		unlink(disk);
	}
	tree_free(t);
	close(fd);
}

static void documents(const char *text, size_t len)
{
	struct oci_descriptor d;
	struct oci_image i;
	bool manifest;
	struct err e;

	(void)!oci_parse_index(text, len, "latest", &d, &manifest, &e);
	if (oci_parse_docker(text, len, NULL, &i, &e) == 0)
		oci_image_done(&i);
	if (oci_parse_manifest(text, len, &i, &e) == 0) {
		(void)!oci_parse_config(text, len, &i, &e);
		oci_image_done(&i);
	}
	i = (struct oci_image){0};
	(void)!oci_parse_config(text, len, &i, &e);
	oci_image_done(&i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	if (data[0] % 4 == 0) {
		layers(data + 1, len - 1);
	} else {
		char *text = strndup((const char *)data + 1, len - 1);
		struct oci_ref ref;
		struct err e;

		documents((const char *)data + 1, len - 1);
		(void)!oci_ref_parse(text, &ref, &e);
		free(text);
	}
	return 0;
}
