#include "cli/net_option.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/test.h"

static struct net_options got;
static struct err err;

static struct option_list list_of(const char *const *text)
{
	struct option_list list = {0};

	while (text && text[list.n]) {
		list.value[list.n] = text[list.n];
		list.n++;
	}
	return list;
}

#define LIST(...) ((const char *[]){__VA_ARGS__, NULL})

static int parse(const char *const *net, const char *const *publish, const char *capture)
{
	const struct option_list n = list_of(net), p = list_of(publish);

	net_options_done(&got);
	memset(&got, 0, sizeof got);
	return net_options_parse(&got, &n, &p, capture, &err);
}

static int teardown(void **state)
{
	net_options_done(&got);
	memset(&got, 0, sizeof got);
	return 0;
}

static void without_options_there_is_a_card_of_user_mode_nat(void **state)
{
	assert_int_equal(parse(NULL, NULL, NULL), 0);
	assert_int_equal(got.n, 1);
	assert_int_equal(got.net[0].net.kind, NET_USER);
	assert_false(got.net[0].has_mac || got.net[0].net.restricted);
	assert_null(got.net[0].net.capture);
}

static void none_is_no_card(void **state)
{
	assert_int_equal(parse(LIST("none"), NULL, NULL), 0);
	assert_int_equal(got.n, 0);
}

static void each_key_reaches_its_field(void **state)
{
	const struct machine_net *n = &got.net[0];

	assert_int_equal(
		parse(LIST("switch=lab,uplink,mac=52:54:00:12:34:56,mtu=9000,queues=3,"
			   "rx=1M,tx=2M",
			   "user,restrict,tftp=/srv,bootfile=f", "tap", "tap=t0", "bridge=br0"),
		      NULL, NULL),
		0);
	assert_int_equal(got.n, 5);
	assert_int_equal(n->net.kind, NET_SWITCH);
	assert_string_equal(n->net.name, "lab");
	assert_true(n->net.uplink && n->has_mac);
	assert_memory_equal(n->mac, "\x52\x54\0\x12\x34\x56", 6);
	assert_int_equal(n->net.mtu, 9000);
	assert_int_equal(n->queues, 3);
	assert_int_equal(n->net.rx.bytes.rate, MIB(1));
	assert_int_equal(n->net.tx.bytes.rate, MIB(2));
	assert_true(got.net[1].net.restricted);
	assert_string_equal(got.net[1].net.tftp, "/srv");
	assert_string_equal(got.net[1].net.bootfile, "f");
	assert_int_equal(got.net[2].net.kind, NET_TAP);
	assert_null(got.net[2].net.name);
	assert_string_equal(got.net[3].net.name, "t0");
	assert_int_equal(got.net[4].net.kind, NET_BRIDGE);
}

static void forwards_are_the_first_user_cards(void **state)
{
	const struct net_opts *o = &got.net[1].net;

	assert_int_equal(parse(LIST("switch=lab", "user", "user"),
			       LIST("2222:22", "0.0.0.0:53:5353/udp"), NULL),
			 0);
	assert_int_equal(o->forwards, 2);
	assert_int_equal(o->forward[0].host_port, 2222);
	assert_int_equal(o->forward[0].guest_port, 22);
	assert_true(o->forward[1].udp);
	assert_int_equal(o->forward[1].host_addr, 0);
	assert_int_equal(got.net[0].net.forwards + got.net[2].net.forwards, 0);
}

static void as_many_forwards_as_can_be_given_fit(void **state)
{
	const char *many[OPTION_LIST_MAX + 1] = {0};

	for (unsigned i = 0; i < OPTION_LIST_MAX; i++)
		many[i] = "1:2";
	assert_int_equal(parse(NULL, many, NULL), 0);
	assert_int_equal(got.net[0].net.forwards, OPTION_LIST_MAX);
}

static void each_card_has_a_capture_of_its_own(void **state)
{
	assert_int_equal(parse(LIST("user", "none", "switch=a"), NULL, "f.pcapng"), 0);
	assert_string_equal(got.net[0].net.capture, "f.pcapng");
	assert_string_equal(got.net[1].net.capture, "f.pcapng.1");
}

static void what_is_wrong_is_said(void **state)
{
	static const struct {
		const char *net, *says;
	} bad[] = {
		{"", "begins with no value"},
		{"usr", "'usr' is no kind of network: user, tap, bridge, switch or none"},
		{"none,mtu=1", "'none' is no kind"},
		{"user=x", "'user' takes no name"},
		{"bridge", "'bridge' wants a name: bridge=NAME"},
		{"switch=", "'switch' wants a name"},
		{"tap,restrict", "restrict is for 'user'"},
		{"tap,tftp=/srv", "tftp and bootfile are for 'user'"},
		{"user,bootfile=f", "bootfile: say with tftp=DIR"},
		{"user,uplink", "uplink is for 'switch'"},
		{"user,mtu=67", "mtu: from 68 to 65521"},
		{"user,mtu=65522", "mtu: from 68 to 65521"},
		{"user,queues=17", "queues: at most 16"},
		{"user,queues=-1", "queues"},
		{"user,rx=fast", "rx"},
		{"user,mac=52:54", "'52:54' is no MAC address like"},
		{"user,mac=01:00:5e:00:00:01", "no address that a card can have"},
		{"user,mtu", "mtu needs a value"},
		{"user,mtu=100,mtu=100", "mtu is given twice"},
		{"user,speed=1", "unknown key 'speed'"},
		{"user,restrct", "did you mean 'restrict'?"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(parse(LIST(bad[i].net), NULL, NULL) < 0);
		assert_non_null(strstr(err.text, "--net "));
		if (!strstr(err.text, bad[i].says))
			fail_msg("'%s' is told: %s", bad[i].net, err.text);
	}
}

static void a_forward_that_cannot_be_is_refused(void **state)
{
	static const char *const bad[] = {"22", "0:22", "1:65536", "x:1:2", "1:2/sctp"};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse(NULL, LIST("1:2", bad[i]), NULL), -EINVAL);
		assert_non_null(strstr(err.text, "-p"));
		assert_non_null(strstr(err.text, bad[i]));
	}
	assert_int_equal(parse(LIST("tap"), LIST("1:2"), NULL), -EINVAL);
	assert_non_null(strstr(err.text, "--net user"));
	assert_int_equal(parse(LIST("none"), LIST("1:2"), NULL), -EINVAL);
}

static void more_cards_than_there_are_slots_are_refused(void **state)
{
	const char *many[MACHINE_NETS_MAX + 2] = {0};

	for (unsigned i = 0; i < MACHINE_NETS_MAX; i++)
		many[i] = "user";
	assert_int_equal(parse(many, NULL, "f"), 0);
	assert_int_equal(got.n, MACHINE_NETS_MAX);
	many[MACHINE_NETS_MAX] = "user";
	assert_int_equal(parse(many, NULL, NULL), -EINVAL);
	assert_non_null(strstr(err.text, "at most 8 cards"));
}

int main(void)
{
#define OPTION(f) cmocka_unit_test_teardown(f, teardown)
	const struct CMUnitTest tests[] = {
		OPTION(without_options_there_is_a_card_of_user_mode_nat),
		OPTION(none_is_no_card),
		OPTION(each_key_reaches_its_field),
		OPTION(forwards_are_the_first_user_cards),
		OPTION(as_many_forwards_as_can_be_given_fit),
		OPTION(each_card_has_a_capture_of_its_own),
		OPTION(what_is_wrong_is_said),
		OPTION(a_forward_that_cannot_be_is_refused),
		OPTION(more_cards_than_there_are_slots_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
