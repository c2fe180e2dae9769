/* control: a VM as others see it while its process lives: its directory (registry.h), its socket with
 * the methods (methods.c), its events, and the last of its console.
 *
 * Threads: made, attached, detached and freed on the main thread, which is the machine's loop thread.
 * Methods run on the server's thread; what touches the machine is handed to the loop thread
 * (control_on_loop), which never waits for the server's. */
#pragma once

#include "chipset/device.h"
#include "control/registry.h"
#include "machine/machine.h"

struct control;

/* What the program around the machine does when asked. Loop thread. */
struct control_host {
	/* Presses the power button, and ends the VM when it is still there after so long. */
	void (*stop)(struct control_host *h, unsigned timeout_s);
	void (*kill)(struct control_host *h);
	/* For the console: all of it, or false. */
	bool (*input)(struct control_host *h, const uint8_t *bytes, uint32_t len);
};

struct control_opts {
	const char *name;
	bool exact;          /* the name, and no other */
	bool background;     /* nobody's terminal */
	const char *restart; /* "no", "on-failure", "always" */
	bool confine;        /* the process will be; it has one thread now */
};

WARN_UNUSED int control_new(struct control **out, const struct control_opts *o, struct err *e);
const struct vm_dir *control_dir(const struct control *c);
/* What the guest says goes through this one, to next as well (NULL: to the log alone). */
struct byte_sink *control_sink(struct control *c, struct byte_sink *next);
struct machine_watcher *control_watcher(struct control *c);

/* Before the process is confined. The profile gets the VM's directory, and what notes its end; sockets[n] are
 * those that it made elsewhere. */
struct confine_profile;
WARN_UNUSED int control_confine(struct control *c, struct confine_profile *p,
				const char *const *sockets, unsigned n, struct err *e);
/* After it was, or was not: with what is missing of the layers. */
struct confine_state;
WARN_UNUSED int control_confined(struct control *c, const struct confine_state *s, struct err *e);

/* The machine is built: the socket is there when it returns. */
WARN_UNUSED int control_attach(struct control *c, struct machine *m,
			       const struct machine_config *config, struct control_host *h,
			       struct err *e);
/* Any thread but the loop's: runs fn(machine, arg, e) there and returns what it returned; -ESHUTDOWN:
 * the VM has ended. */
WARN_UNUSED int control_call(struct control *c,
			     int (*fn)(struct machine *m, void *arg, struct err *e), void *arg,
			     struct err *e);
bool control_paused(struct control *c); /* any thread */
/* It begins to run. */
void control_running(struct control *c);
/* It is asked to stop: why, in a word. Loop thread. */
void control_stopping(struct control *c, const char *why);
/* machine_run has returned; before machine_free. */
void control_detach(struct control *c);

enum control_end { /* how it ended: names in control.c */
		   CONTROL_POWER_OFF,
		   CONTROL_STOPPED, /* because it was asked to */
		   CONTROL_KILLED,  /* likewise, without asking the guest */
		   CONTROL_RESET,
		   CONTROL_TRIPLE_FAULT,
		   CONTROL_DEBUG_EXIT,
		   CONTROL_FAILED,
};
/* Notes it, and tells those who wait. text: for people. */
void control_ended(struct control *c, enum control_end how, int status, const char *text);
/* Accepts NULL. */
void control_free(struct control *c);
