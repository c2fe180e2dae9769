/* pull: names, checksum files, unpacking. Servers are tests/system/pull_test.py's. */
#include "base/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "image/inflate.h"
#include "image/pull.h"
#include "image/sums.h"

#define A64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void names_come_from_sources(void **state)
{
	static const char *const cases[][2] = {
		{"https://x.org/a/debian-12-genericcloud-amd64.qcow2",
		 "debian-12-genericcloud-amd64"},
		{"http://x.org/a/disk.raw.gz?token=a/b", "disk"},
		{"/tmp/My Disk.img", "My-Disk"},
		{"http://x.org/", "image"},
		{"http://x.org/..", "image"},
		{"x.qcow2", "x"},
	};
	char name[STORE_NAME_MAX + 1], longest[300];

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		pull_name(cases[i][0], name);
		assert_string_equal(name, cases[i][1]);
		assert_int_equal(store_check_name("image", name, NULL), 0);
	}
	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = 0;
	pull_name(longest, name);
	assert_int_equal(strlen(name), STORE_NAME_MAX);
}

static void checksums_are_found(void **state)
{
	char to[DIGEST_LEN_MAX + 1];

	assert_true(sums_find("x\n" A64 "  other\n" A64 " *disk\r\n", "disk", DIGEST_SHA256, to));
	assert_string_equal(to, A64);
	assert_true(sums_find("SHA256 (disk) = " A64, "disk", DIGEST_SHA256, to));
	assert_true(sums_find(A64 "  ./disk", "disk", DIGEST_SHA256, to));
	assert_false(sums_find(A64 "  disk", "disk", DIGEST_SHA512, to));
	assert_false(sums_find(A64 "  disk2\n" A64 "  a/disk", "disk", DIGEST_SHA256, to));
	assert_false(sums_find("0 disk\n) = \nSHA256 (disk) = 12", "disk", DIGEST_SHA256, to));
}

struct collect {
	struct inflate_sink sink;
	size_t len;
	uint8_t bytes[1 << 20];
};

static int collect(struct inflate_sink *s, const void *bytes, size_t len, struct err *e)
{
	struct collect *c = container_of(s, struct collect, sink);

	if (len > sizeof c->bytes - c->len)
		return err_set(e, EFBIG, "too much");
	memcpy(c->bytes + c->len, bytes, len);
	c->len += len;
	return 0;
}

static int unpack(const void *bytes, size_t len, struct collect *c, struct err *e)
{
	int fd = memfd_create("packed", MFD_CLOEXEC), r;

	assert_int_equal(write(fd, "ab", 2), 2);
	assert_int_equal(write(fd, bytes, len), len);
	assert_int_equal(write(fd, "xy", 2), 2);
	c->sink.data = collect;
	c->len = 0;
	r = inflate_fd(fd, 2, len, &c->sink, NULL, e);
	close(fd);
	return r;
}

static size_t gzip(const void *from, size_t len, uint8_t *to, size_t room)
{
	z_stream z = {.next_in = (uint8_t *)(uintptr_t)from,
		      .avail_in = (unsigned)len,
		      .next_out = to,
		      .avail_out = (unsigned)room};

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static void streams_are_unpacked(void **state)
{
	static uint8_t plain[600000], packed[700000];
	static struct collect c;
	struct err e;
	size_t n;

	for (size_t i = 0; i < sizeof plain; i++)
		plain[i] = (uint8_t)(i * i >> 7);
	assert_int_equal(unpack(plain, sizeof plain, &c, &e), 0);
	assert_int_equal(c.len, sizeof plain);

	n = gzip(plain, sizeof plain, packed, sizeof packed);
	n += gzip("tail", 4, packed + n, sizeof packed - n);
	assert_int_equal(unpack(packed, n, &c, &e), 0);
	assert_int_equal(c.len, sizeof plain + 4);
	assert_memory_equal(c.bytes, plain, sizeof plain);
	assert_memory_equal(c.bytes + sizeof plain, "tail", 4);
	assert_int_equal(unpack(packed, n - 5, &c, &e), -EBADMSG);
	packed[n / 2] ^= 0xff;
	assert_int_equal(unpack(packed, n, &c, &e), -EBADMSG);

	n = ZSTD_compress(packed, sizeof packed, plain, sizeof plain, 3);
	assert_int_equal(unpack(packed, n, &c, &e), 0);
	assert_int_equal(c.len, sizeof plain);
	assert_memory_equal(c.bytes, plain, sizeof plain);
	assert_int_equal(unpack(packed, n - 5, &c, &e), -EBADMSG);
	assert_int_equal(unpack("\xfd"
				"7zXZ\0abc",
				9, &c, &e),
			 -ENOTSUP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_come_from_sources),
		cmocka_unit_test(checksums_are_found),
		cmocka_unit_test(streams_are_unpacked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
