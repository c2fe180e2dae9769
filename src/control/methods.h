/* methods: the table of what a VM's control socket can be asked (methods.c), and what each takes. */
#pragma once

#include "api/method.h"
#include "api/option.h"
#include "control/plug_args.h"

enum control_method {
	METHOD_INFO,
	METHOD_STATS,
	METHOD_METRICS,
	METHOD_EVENTS,
	METHOD_WAIT,
	METHOD_CONSOLE,
	METHOD_INPUT,
	METHOD_SIZE,
	METHOD_PAUSE,
	METHOD_RESUME,
	METHOD_STOP,
	METHOD_KILL,
	METHOD_RESET,
	METHOD_RENAME,
	METHOD_SET,
	METHOD_ATTACH_DISK,
	METHOD_ATTACH_NET,
	METHOD_DETACH,
};
extern const struct api_method control_methods[];
extern const unsigned control_methods_count;

struct stop_args {
	unsigned timeout; /* seconds */
};
struct events_args {
	bool follow;
	unsigned since;
};
#define CONSOLE_ALL_LINES UINT32_MAX
struct console_args {
	bool follow;
	unsigned lines;
};
struct input_args {
	const char *text, *hex; /* one of them */
};
struct size_args {
	unsigned columns, rows;
};
struct rename_args {
	const char *name;
};
#define SET_KEEP       UINT64_MAX /* not given */
#define SET_KEEP_COUNT UINT32_MAX
struct detach_args {
	const char *id;
	bool force;
};
struct set_args {
	uint64_t balloon, bps, rx, tx;
	const char *disk;
	unsigned iops, net;
	const char *cpu_cap, *vcpu_cap, *swap_limit;
	unsigned cpu_weight, io_weight; /* 0: not given */
	uint64_t memory_limit;
	struct option_list cpu_pin;
};
