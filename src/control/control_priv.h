/* control_priv: what the files of a VM's control share.
 *
 *   control.c   its life: directory, state file, the way to the loop thread
 *   methods.c   the table of methods, and what they do
 *   set_limits.c  the limits that change while it runs
 *   plug.c      what comes and goes: disks, network cards
 *   streams.c   answers that come bit by bit: console, events, the wait for the end
 *   figures.c   statistics as JSON and for Prometheus */
#pragma once

#include <stdatomic.h>
#include <time.h>

#include "api/server.h"
#include "control/console_log.h"
#include "control/control.h"
#include "control/events.h"
#include "control/dir_keeper.h"

/* States, as bits for api_method.states. */
enum control_state {
	CONTROL_STARTING = 1,
	CONTROL_RUNNING = 2,
	CONTROL_PAUSED = 4,
	CONTROL_OVER = 8,
};
#define CONTROL_ALIVE (CONTROL_RUNNING | CONTROL_PAUSED)

struct control {
	struct vm_dir dir;
	struct dir_keeper keeper; /* of one that is to be confined */
	const char *confined;     /* "yes", "partly", "no" */
	bool host_network;        /* its cards may use the host's */
	char unconfined[256];     /* what is missing, for people */
	struct api_table table;
	struct api_server *server;
	struct console_log log;
	struct events events;
	struct byte_sink sink, *next_sink;
	struct machine_watcher watcher;
	struct control_host *host;
	atomic_bool console_followed; /* somebody wants to know when there is more */

	/* Set before the server is there: */
	const char *engine; /* "jit" */
	char *engine_reason;
	unsigned cpus;
	uint64_t memory_bytes;
	json_t *shares; /* as 'inspect' shows them; NULL: none */
	bool background;
	char restart[16];
	time_t started;

	pthread_mutex_t
		call_lock;    /* held by whoever uses the way to the loop thread; before lock */
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	enum control_state state;
	const char *stopping; /* why it was asked to end; NULL: it was not */
	char end_text[256];
	int end_status;
	enum control_end end;

	/* The way to the loop thread. */
	struct machine *machine; /* NULL: there is none to be asked any more */
	struct loop_call call;
	int (*call_fn)(struct control *c, void *arg, struct err *e);
	void *call_arg;
	struct err *call_err;
	int call_result;
	bool call_done;
};

/* Any thread but that one: runs fn on the loop thread and returns what it returned; -ESHUTDOWN: the VM has
 * ended. */
WARN_UNUSED int control_on_loop(struct control *c,
				int (*fn)(struct control *c, void *arg, struct err *e), void *arg,
				struct err *e);
/* The same as state.json. Any thread, without the lock. */
json_t *control_info(struct control *c);
const char *control_end_name(enum control_end how);
WARN_UNUSED int control_rename(struct control *c, const char *name, struct err *e);

/* methods.c */
const char *control_refuses(void *control, const struct api_method *m);

/* set_limits.c */
struct set_args;
bool control_sets_limits(const struct set_args *a); /* some of them are given */
WARN_UNUSED int control_set_limits(struct control *c, const struct set_args *a, struct err *e);

/* plug.c: methods, and what there is */
int control_attach_disk(void *ctx, const void *args, struct api_fds *fds, struct api_reply *reply,
			struct err *e);
int control_attach_net(void *ctx, const void *args, struct api_fds *fds, struct api_reply *reply,
		       struct err *e);
int control_detach_part(void *ctx, const void *args, struct api_reply *reply, struct err *e);
void control_add_parts(struct control *c, json_t *info); /* server's thread */
void control_part_news(struct machine_watcher *w, const char *id, bool there);

/* streams.c */
struct api_stream *control_console_stream(struct control *c, uint64_t from, bool follow);
struct api_stream *control_events_stream(struct control *c, uint64_t from, bool follow);
struct api_stream *control_wait_stream(struct control *c);

/* figures.c */
struct control_figures {
	struct machine_stats machine;
	uint64_t process_ns, resident_bytes, charged_bytes;
	const char *cap_by;
	struct resource *resource; /* its paths do not change; or NULL */
};
void control_get_figures(struct control *c, struct control_figures *f); /* loop thread */
json_t *control_figures_json(const struct control_figures *f);
char *control_figures_prometheus(const struct control *c, const struct control_figures *f);
