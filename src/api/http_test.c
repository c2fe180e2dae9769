#include "api/http.h"

#include <stdio.h>

#include "base/test.h"

static long parse(struct http_request *q, char buf[4096], const char *text)
{
	snprintf(buf, 4096, "%s", text);
	return http_parse(q, buf, strlen(text));
}

static void a_whole_request_is_taken_apart(void **state)
{
	static const char text[] =
		"POST /vm/stop?a=b HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\n{}GET";
	struct http_request q;
	char buf[4096];

	assert_int_equal(parse(&q, buf, text), sizeof text - 1 - 3);
	assert_string_equal(q.verb, "POST");
	assert_string_equal(q.path, "/vm/stop");
	assert_string_equal(q.query, "a=b");
	assert_int_equal(q.body_len, 2);
	assert_memory_equal(q.body, "{}", 2);
	assert_true(q.keep_alive);
	assert_false(q.old);
}

static void headers_are_found(void **state)
{
	struct http_request q;
	char buf[4096];
	const char *value;
	size_t len;

	assert_true(parse(&q, buf,
			  "GET / HTTP/1.1\r\nHost: x\r\nX-Token:  a b \r\nempty:\r\n\r\n") > 0);
	value = http_header(&q, "x-token", &len);
	assert_int_equal(len, 3);
	assert_memory_equal(value, "a b", 3);
	assert_non_null(http_header(&q, "Empty", &len));
	assert_int_equal(len, 0);
	assert_null(http_header(&q, "token", &len));
}

static void the_bound_of_a_body_can_be_another(void **state)
{
	static const char text[] = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n";
	struct http_request q;
	char buf[4096];

	assert_int_equal(parse(&q, buf, text), -413);
	assert_int_equal(http_parse_max(&q, buf, strlen(text), 70000), 0);
	assert_int_equal(http_parse_max(&q, buf, strlen(text), 69999), -413);
}

static void a_part_waits_for_the_rest(void **state)
{
	static const char text[] = "GET /vm HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab";
	struct http_request q;
	char buf[4096];

	memcpy(buf, text, sizeof text);
	for (size_t len = 0; len < sizeof text; len++)
		assert_int_equal(http_parse(&q, buf, len), 0);
}

static void who_waits_for_permission_is_seen(void **state)
{
	struct http_request q;
	char buf[4096];

	assert_int_equal(parse(&q, buf,
			       "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
			       "Expect: 100-continue\r\n\r\n"),
			 0);
	assert_true(q.expects_continue);
}

static void nonsense_is_refused(void **state)
{
	static const struct {
		long status;
		const char *text;
	} bad[] = {
		{-400, "GET /vm HTTP/1.1\r\n\r\n"}, /* no Host */
		{-400, "GET vm HTTP/1.1\r\nHost: x\r\n\r\n"},
		{-400, "GET  /vm HTTP/1.1\r\nHost: x\r\n\r\n"},
		{-400, "G(T /vm HTTP/1.1\r\nHost: x\r\n\r\n"},
		{-400, "GET /vm\r\nHost: x\r\n\r\n"},
		{-400, "GET /v\x01m HTTP/1.1\r\nHost: x\r\n\r\n"},
		{-400, "GET /vm HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n"},
		{-400, "GET /vm HTTP/1.1\r\nHost : x\r\n\r\n"},
		{-400, "GET /vm HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"},
		{-400,
		 "GET /vm HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"},
		{-505, "GET /vm HTTP/2.0\r\nHost: x\r\n\r\n"},
		{-501, "GET /vm HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{-413, "GET /vm HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n"},
		{-413,
		 "GET /vm HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n"},
		{-417, "GET /vm HTTP/1.1\r\nHost: x\r\nExpect: money\r\n\r\n"},
	};
	struct http_request q;
	char buf[4096];

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse(&q, buf, bad[i].text), bad[i].status);
}

static void a_head_without_end_is_refused(void **state)
{
	static char buf[HTTP_HEAD_MAX + 10];
	struct http_request q;

	memset(buf, 'a', sizeof buf);
	assert_int_equal(http_parse(&q, buf, HTTP_HEAD_MAX - 1), 0);
	assert_int_equal(http_parse(&q, buf, HTTP_HEAD_MAX), -431);
}

static void connections_stay_open_as_the_version_says(void **state)
{
	struct http_request q;
	char buf[4096];

	assert_true(parse(&q, buf, "GET / HTTP/1.1\r\nHost: x\r\nConnection: a, Close\r\n\r\n") >
		    0);
	assert_false(q.keep_alive);
	assert_true(parse(&q, buf, "GET / HTTP/1.0\r\n\r\n") > 0);
	assert_false(q.keep_alive);
	assert_true(q.old);
	assert_true(parse(&q, buf, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n") > 0);
	assert_true(q.keep_alive);
}

static void queries_are_decoded(void **state)
{
	char text[] = "a=1+2&b=%2Fx%26&c", *query = text, *name, *value;

	assert_int_equal(http_next_pair(&query, &name, &value), 1);
	assert_string_equal(value, "1 2");
	assert_int_equal(http_next_pair(&query, &name, &value), 1);
	assert_string_equal(name, "b");
	assert_string_equal(value, "/x&");
	assert_int_equal(http_next_pair(&query, &name, &value), 1);
	assert_string_equal(name, "c");
	assert_string_equal(value, "");
	assert_int_equal(http_next_pair(&query, &name, &value), 0);
}

static void malformed_queries_are_refused(void **state)
{
	static const char *const bad[] = {"a=%", "a=%1", "a=%zz", "%00=1"};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		char text[16], *query = text, *name, *value;

		strcpy(text, bad[i]);
		assert_int_equal(http_next_pair(&query, &name, &value), -1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_request_is_taken_apart),
		cmocka_unit_test(headers_are_found),
		cmocka_unit_test(the_bound_of_a_body_can_be_another),
		cmocka_unit_test(a_part_waits_for_the_rest),
		cmocka_unit_test(who_waits_for_permission_is_seen),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(a_head_without_end_is_refused),
		cmocka_unit_test(connections_stay_open_as_the_version_says),
		cmocka_unit_test(queries_are_decoded),
		cmocka_unit_test(malformed_queries_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
