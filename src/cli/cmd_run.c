/* holon run: one machine, this terminal, and the signals of the people around it.
 *
 * Signals come through a signalfd on the machine's loop, blocked in every thread, so that
 * what they cause is ordinary code. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/unix_socket.h"
#include "cli/console_in.h"
#include "cli/console_out.h"
#include "cli/console_view.h"
#include "cli/detach.h"
#include "cli/disk_option.h"
#include "cli/keyboard.h"
#include "cli/limit_option.h"
#include "cli/run_confine.h"
#include "cli/run_devices.h"
#include "cli/run_firmware.h"
#include "cli/run_system.h"
#include "cli/run_vm.h"
#include "cli/net_option.h"
#include "cli/tty_mode.h"
#include "control/control.h"
#include "machine/machine.h"

static const int handled[] = {SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT, SIGUSR1, SIGWINCH};

#define STOP_TICK_NS 250000000

struct session {
	const char *name;
	bool oci; /* a container's image: its command's exit status comes by the debug exit */
	struct detached *detached;
	struct control *control;
	struct control_host host;
	struct run_hooks *hooks;       /* or NULL */
	char vsock[UNIX_PATH_MAX + 1]; /* where its socket is */
	struct machine *machine;
	enum confine_choice confine;
	struct console_out out;
	struct console_view view;
	struct console_in in;
	struct tty_mode tty;
	struct loop_fd signals;
	sigset_t old_mask;
	unsigned asked_to_end; /* how many of SIGTERM and SIGINT came */
	int status_if_stopped;
	bool asked_to_stop, stop_timeout_ran_out;

	/* While it is asked to stop: */
	struct loop_fd stop_tick; /* a timerfd; -1: it is not */
	unsigned stop_ticks;      /* that are left */
	bool button_heard;        /* the guest listened when it was pressed */
	unsigned stop_timeout;    /* seconds, of a signal */
};

static void stop(struct session *s, int status)
{
	s->status_if_stopped = status;
	console_out_abandon(&s->out);
	machine_stop(s->machine);
}

/* --- asked to stop --- */

static void press_button(struct session *s)
{
	machine_resume(s->machine, MACHINE_PAUSE_ASKED);
	s->button_heard = machine_power_button_armed(s->machine);
	machine_power_button(s->machine);
}

/* A guest that is still booting hears the button when it begins to listen. */
static void stop_ticks(struct loop_fd *f, uint32_t events)
{
	struct session *s = container_of(f, struct session, stop_tick);
	uint64_t count;

	if (read(f->fd, &count, sizeof count) < 0)
		return;
	if (!s->button_heard && machine_power_button_armed(s->machine))
		press_button(s);
	if (s->stop_ticks && --s->stop_ticks == 0) {
		log_warn("%s: the guest did not power off in time; ended", s->name);
		s->stop_timeout_ran_out = true;
		stop(s, s->status_if_stopped);
	}
}

/* status: what to exit with when the guest has to be ended. */
static void begin_stop(struct session *s, unsigned timeout_s, int status)
{
	const struct itimerspec ticks = {{0, STOP_TICK_NS}, {0, STOP_TICK_NS}};

	s->status_if_stopped = status;
	s->asked_to_stop = true;
	s->stop_ticks = timeout_s * 4;
	press_button(s);
	if (!timeout_s) {
		stop(s, status);
		return;
	}
	if (s->stop_tick.fd >= 0)
		return;
	s->stop_tick.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->stop_tick.fd < 0 || timerfd_settime(s->stop_tick.fd, 0, &ticks, NULL) < 0 ||
	    loop_add(machine_loop(s->machine), &s->stop_tick, EPOLLIN, NULL) < 0)
		stop(s, status); /* rather than never */
}

static void end_stop(struct session *s)
{
	if (s->stop_tick.fd < 0)
		return;
	loop_del(machine_loop(s->machine), &s->stop_tick);
	close(s->stop_tick.fd);
	s->stop_tick.fd = -1;
}

static void host_stop(struct control_host *h, unsigned timeout_s)
{
	begin_stop(container_of(h, struct session, host), timeout_s, EXIT_SIGNALLED + SIGTERM);
}

static void host_kill(struct control_host *h)
{
	stop(container_of(h, struct session, host), EXIT_SIGNALLED + SIGKILL);
}

static bool host_input(struct control_host *h, const uint8_t *bytes, uint32_t len)
{
	return console_in_feed(&container_of(h, struct session, host)->in, bytes, len);
}

static void asked(struct session *s, const char *why)
{
	if (s->control)
		control_stopping(s->control, why);
}

/* --- signals --- */

static void asked_to_end(struct session *s, int sig)
{
	if (s->asked_to_end++) {
		log_info("%s: ended by a second signal", s->name);
		asked(s, "killed");
		stop(s, EXIT_SIGNALLED + sig);
		return;
	}
	asked(s, "stopped");
	if (!machine_power_button_armed(s->machine))
		log_warn("%s: the guest does not listen to its power button; "
			 "a second signal ends it, or %u seconds without an answer",
			 s->name, s->stop_timeout);
	begin_stop(s, s->stop_timeout, EXIT_SIGNALLED + sig);
}

static void hung_up(struct session *s, int sig)
{
	asked(s, "killed");
	stop(s, EXIT_SIGNALLED + sig);
}

static void suspend(struct session *s)
{
	console_view_leave(&s->view);
	tty_mode_restore(&s->tty);
	raise(SIGSTOP); /* SIGTSTP, which we have blocked to get here, would not stop us */
}

static void continued(struct session *s)
{
	tty_mode_raw(&s->tty, STDIN_FILENO);
	console_in_continue(&s->in);
}

static void tell(struct session *s)
{
	char text[1024];

	machine_tell(s->machine, text, sizeof text);
	fputs(text, stderr);
}

static void terminal_resized(struct session *s)
{
	struct winsize size;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
		machine_console_size(s->machine, size.ws_col, size.ws_row);
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
		console_view_resize(&s->view, size.ws_col, size.ws_row);
}

static void act_on_signal(struct session *s, int sig)
{
	switch (sig) {
	case SIGTERM:
	case SIGINT: asked_to_end(s, sig); break;
	case SIGHUP: hung_up(s, sig); break;
	case SIGTSTP: suspend(s); break;
	case SIGCONT: continued(s); break;
	case SIGUSR1: tell(s); break;
	case SIGWINCH: terminal_resized(s); break;
	default: break;
	}
}

static void signal_ready(struct loop_fd *f, uint32_t events)
{
	struct session *s = container_of(f, struct session, signals);
	struct signalfd_siginfo info;

	if (read(f->fd, &info, sizeof info) == sizeof info)
		act_on_signal(s, (int)info.ssi_signo);
}

static bool ignored(int sig)
{
	struct sigaction now;

	return sigaction(sig, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

void run_block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(handled); i++)
		sigaddset(&set, handled[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Before any thread is made, so that all of them inherit the mask. */
static int catch_signals(struct session *s, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(handled); i++)
		sigaddset(&set, handled[i]);
	if (ignored(SIGHUP)) /* nohup */
		sigdelset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, &s->old_mask);
	/* A failed write says enough, and so does guest memory beyond the limit of file sizes. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	s->signals.ready = signal_ready;
	s->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals.fd < 0 ? err_sys(e, errno, "signalfd") : 0;
}

static void release_signals(struct session *s)
{
	if (s->signals.fd >= 0)
		close(s->signals.fd);
	pthread_sigmask(SIG_SETMASK, &s->old_mask, NULL);
}

/* --- keys --- */

static void reboot_keys(struct session *s)
{
	struct keyboard_codes codes;

	keyboard_reboot(&codes);
	if (!machine_key(s->machine, codes.code, codes.len))
		log_warn("%s: the guest does not read its keyboard", s->name);
}

static uint32_t typed(void *ctx, const uint8_t *bytes, uint32_t len)
{
	struct session *s = ctx;

	return console_view_input(&s->view, bytes, len);
}

static void help(struct session *s)
{
	bool resting = console_view_rest(&s->view);

	fprintf(stderr,
		"\nCtrl-A x       end the VM at once\n"
		"Ctrl-A h       this list\n"
		"Ctrl-A s       switch between the VGA's screen and the serial port\n"
		"Ctrl-A r       press Ctrl-Alt-Del on the VGA's keyboard\n"
		"Ctrl-A Ctrl-A  send one Ctrl-A to the guest\n%s",
		resting ? "any key        back to the screen\n" : "");
}

static void key_pressed(void *ctx, enum console_key key)
{
	struct session *s = ctx;

	if (key == KEY_QUIT) {
		asked(s, "killed");
		stop(s, EXIT_DONE);
	} else if (key == KEY_DETACH)
		fputs("\nThis VM ends with its terminal; 'holon run -d' starts one that does not.\n",
		      stderr);
	else if (key == KEY_VIEW)
		console_view_switch(&s->view);
	else if (key == KEY_REBOOT)
		reboot_keys(s);
	else if (key == KEY_HELP)
		help(s);
}

/* --- the run --- */

static void print_registers(const struct x86_state *s)
{
	char text[4096];

	x86_state_print(s, text, sizeof text);
	fputs(text, stderr);
}

static int report(const struct session *s, const struct machine_result *r)
{
	switch (r->end) {
	case END_POWER_OFF: return EXIT_DONE;
	case END_DEBUG_EXIT:
		return s->oci ? (int)r->value & 0xff : (int)((r->value << 1 | 1) & 0xff);
	case END_STOPPED: return s->status_if_stopped;
	case END_RESET:
		if (s->hooks)
			return EXIT_DONE;
		log_error("%s: the guest reset the machine; vCPU 0 then:", s->name);
		print_registers(&r->state);
		return EXIT_GUEST_DOWN;
	case END_TRIPLE_FAULT:
		log_error("%s: triple fault of vCPU %u:", s->name, r->value);
		print_registers(&r->state);
		return EXIT_GUEST_DOWN;
	case END_ERROR: break;
	}
	return EXIT_TROUBLE;
}

/* Others can find it from now on, and whoever started it in the background is told. */
static int be_found(struct session *s, const struct machine_config *c, struct err *e)
{
	char log[VM_PATH_MAX + 32];
	int r = control_attach(s->control, s->machine, c, &s->host, e);

	if (r < 0)
		return r;
	control_running(s->control);
	vm_dir_file(control_dir(s->control), "holon.log", log);
	return s->detached ? detach_ready(s->detached, s->name, log, e) : 0;
}

static int run_attached(struct session *s, const struct machine_config *c,
			struct machine_result *result, struct err *e)
{
	struct loop *loop = machine_loop(s->machine);
	int r = loop_add(loop, &s->signals, EPOLLIN, e);

	if (r < 0 || (r = console_out_attach(&s->out, loop, e)) < 0)
		return r;
	if (s->control && (r = be_found(s, c, e)) < 0)
		return r;
	if (s->hooks && (r = s->hooks->started(s->hooks, s->control, s->machine, e)) < 0)
		return r;
	if (!s->detached) {
		tty_mode_raw(&s->tty, STDIN_FILENO);
		terminal_resized(s);
	}
	r = console_view_start(&s->view, s->machine, e);
	if (r < 0)
		return r;
	console_in_start(&s->in, s->detached ? -1 : STDIN_FILENO, s->machine, typed, key_pressed,
			 s);

	r = machine_run(s->machine, result, e);

	if (s->control)
		control_detach(s->control);
	end_stop(s);
	console_in_stop(&s->in);
	console_view_stop(&s->view);
	console_out_detach(&s->out);
	loop_del(loop, &s->signals);
	return r;
}

static int run_machine(struct session *s, const struct machine_config *c,
		       struct machine_result *result, struct err *e)
{
	char stats[200];
	int r;

	tty_mode_guard();
	r = machine_new(&s->machine, c, e);
	if (r < 0)
		return r;
	log_info("engine %s: %s", machine_engine(s->machine), machine_engine_reason(s->machine));
	r = run_confine(s->confine, s->machine, c, s->control, e);
	if (r == 0)
		r = run_attached(s, c, result, e);
	if (s->control)
		control_detach(s->control);
	machine_engine_stats(s->machine, stats, sizeof stats);
	if (*stats)
		log_debug("engine %s: %s", machine_engine(s->machine), stats);
	machine_free(s->machine);
	return r;
}

/* --- for others to find it --- */

/* In the directory is its vsock socket, or the way to where the user wants that. */
static int vsock_there(struct session *s, struct machine_config *c)
{
	char path[VM_PATH_MAX + 32], *target;
	const char *slash;
	int r;

	vm_dir_file(control_dir(s->control), "vsock", path);
	if (!c->vsock) {
		if (strlen(path) > UNIX_PATH_MAX)
			return -ENAMETOOLONG;
		memcpy(s->vsock, path, strlen(path) + 1);
		c->vsock = s->vsock;
		return 0;
	}
	/* The file itself is not there yet. */
	slash = strrchr(c->vsock, '/');
	snprintf(s->vsock, sizeof s->vsock, "%.*s", slash ? (int)(slash - c->vsock) + 1 : 1,
		 slash ? c->vsock : ".");
	target = realpath(s->vsock, NULL);
	if (!target)
		return -errno;
	r = snprintf(s->vsock, sizeof s->vsock, "%s/%s", target, slash ? slash + 1 : c->vsock);
	free(target);
	if (r >= (int)sizeof s->vsock)
		return -ENAMETOOLONG;
	return symlink(s->vsock, path) < 0 ? -errno : 0;
}

static int register_vm(struct session *s, const struct run_opts *o, const char *name,
		       struct machine_config *c, struct err *e)
{
	static const char *const policies[] = {"no", "on-failure", "always"};
	char made[VM_NAME_MAX + 1];
	struct control_opts opts = {
		.name = name ? name : o->name,
		.exact = name || o->name,
		.background = s->detached,
		.restart = policies[o->restart],
		.confine = s->confine != CONFINE_OFF,
	};
	int r;

	if (!opts.exact) {
		vm_make_name(made, s->name);
		opts.name = made;
	}
	r = control_new(&s->control, &opts, e);
	/* A name that a VM has already is a mistake. What else is wrong with the directory does
	 * not keep a VM from running on a terminal. */
	if (r < 0 && !s->detached && !s->hooks && r != -EBUSY && r != -EINVAL) {
		log_warn("%s: it cannot be listed or reached by others: %s", s->name, e->text);
		return 0;
	}
	if (r < 0)
		return r;
	if (!opts.exact || name)
		s->name = c->name = control_dir(s->control)->name;
	c->serial_out = control_sink(s->control, s->detached ? NULL : c->serial_out);
	c->watcher = control_watcher(s->control);
	if (vsock_there(s, c) < 0)
		log_warn("%s: 'holon exec' and 'holon cp' cannot find its vsock socket", s->name);
	return 0;
}

static int run_session(struct session *s, const struct run_opts *o, const char *name,
		       struct machine_config *c, struct machine_result *result, struct err *e)
{
	int r = catch_signals(s, e);

	if (r == 0) /* who finds it may send a signal at once */
		r = register_vm(s, o, name, c, e);
	if (r == 0)
		r = run_machine(s, c, result, e);
	/* In this order: a signal that is let through now must find the terminal restored,
	 * and is what ends the wait for a reader who does not read. */
	tty_mode_restore(&s->tty);
	release_signals(s);
	return r;
}

static const char *name_of(const struct run_opts *o)
{
	const char *slash;

	if (o->name || !o->kernel)
		return o->name ? o->name : "holon";
	slash = strrchr(o->kernel, '/');
	return slash && slash[1] ? slash + 1 : o->kernel;
}

static void note_end(struct session *s, const struct err *failure, const struct machine_result *r,
		     int status)
{
	static const struct {
		enum control_end how;
		const char *text;
	} ends[] = {
		[END_POWER_OFF] = {CONTROL_POWER_OFF, "the guest powered off"},
		[END_RESET] = {CONTROL_RESET, "the guest reset the machine, with --no-reboot"},
		[END_TRIPLE_FAULT] = {CONTROL_TRIPLE_FAULT, "the guest ran into a triple fault"},
		[END_DEBUG_EXIT] = {CONTROL_DEBUG_EXIT, "the guest used its debug exit"},
		[END_STOPPED] = {CONTROL_KILLED, "it was ended"},
		[END_ERROR] = {CONTROL_FAILED, "it failed"},
	};

	if (!s->control)
		return;
	if (failure)
		control_ended(s->control, CONTROL_FAILED, status, failure->text);
	else if (r->end == END_STOPPED && s->stop_timeout_ran_out)
		control_ended(s->control, CONTROL_STOPPED, status,
			      "it was asked to stop and did not, and was ended");
	else if (s->oci && r->end == END_DEBUG_EXIT)
		control_ended(s->control, s->asked_to_stop ? CONTROL_STOPPED : CONTROL_POWER_OFF,
			      status, "its command ended");
	else if (r->end == END_POWER_OFF && s->asked_to_stop)
		control_ended(s->control, CONTROL_STOPPED, status, "it was asked to stop, and did");
	else
		control_ended(s->control, ends[r->end].how, status, ends[r->end].text);
}

/* system: what is on the disk that was named; NULL: there is but a kernel. */
static int run(const struct run_opts *o, struct run_system *system, const char *name,
	       struct detached *detached, struct run_hooks *hooks)
{
	struct session s = {.name = hooks    ? hooks->name
				    : system ? system->name
					     : name_of(o),
			    .oci = system && system->oci,
			    .detached = detached,
			    .hooks = hooks,
			    .host = {host_stop, host_kill, host_input},
			    .stop_timeout = o->stop_timeout,
			    /* A client of that API names files at any time. */
			    .confine = hooks ? CONFINE_OFF : (enum confine_choice)o->confine,
			    .stop_tick = {-1, stop_ticks},
			    .signals.fd = -1};
	struct machine_config c = {
		.name = s.name,
		.engine = (enum engine_choice)o->engine,
		.force = o->force,
		.cpus = o->cpus,
		.cpu_model = (enum cpuid_model)o->cpu,
		.memory_bytes = o->memory ? o->memory
				: system  ? GIB(1)
					  : MIB(512),
		.jit_cache_bytes = o->jit_cache,
		.kernel = o->kernel,
		.initrd = o->initrd,
		.append = o->append,
		.kernel_source = system && (!o->kernel || system->oci) ? &system->source : NULL,
		.debug_exit = o->debug_exit || (system && system->oci),
		.no_reboot = o->no_reboot || (system && system->oci),
		.serial_out = &s.view.sink,
	};
	int status;
	struct machine_result result = {.end = END_ERROR};
	struct disk_options disks = {0};
	struct run_devices devices = {0};
	struct net_options net = {0};
	struct run_firmware firmware = {0};
	struct limit_options limits = {0};
	struct err err = {0};
	int r = machine_parse_virtio_off(o->virtio_off, &c.virtio_off, &err);

	if (r == 0) /* first: what is made from now on counts */
		r = limit_options_apply(&limits, &o->limits, &err);
	c.resource = limits.resource;
	c.pin = limits.pin;
	c.pins = limits.pins;
	if (r == 0)
		r = run_firmware_config(&firmware, o, system, s.name, &c, &err);
	if (r == 0)
		r = disk_options_parse(&disks, &o->disks, &err);
	if (r == 0 && system)
		r = run_system_disks(system, disks.disk, &disks.n, &err);
	c.disk = disks.disk;
	c.disks = disks.n;
	if (r == 0)
		r = run_devices_config(&devices, o, &c, &err);
	if (r == 0)
		r = net_options_parse(&net, &o->net, &o->publish, o->capture, &err);
	c.net = net.net;
	c.nets = net.n;
	if (r == 0 && hooks)
		r = hooks->config(hooks, &c, &err);
	if (r == 0)
		r = console_out_init(&s.out, detached ? -1 : STDOUT_FILENO, &err);
	if (r == 0 &&
	    (r = console_view_init(&s.view, &s.out, STDOUT_FILENO, c.vga && !detached, &err)) < 0)
		console_out_done(&s.out);
	if (r == 0) {
		r = run_session(&s, o, name, &c, &result, &err);
		console_view_done(&s.view);
		console_out_done(&s.out);
	}
	status = r < 0 ? EXIT_TROUBLE : report(&s, &result);
	note_end(&s, r < 0 ? &err : NULL, &result, status);
	disk_options_done(&disks);
	run_devices_done(&devices);
	net_options_done(&net);
	run_firmware_done(&firmware);
	limit_options_done(&limits);
	if (r < 0) {
		log_error("%s: %s", s.name, err.text);
		if (c.engine == ENGINE_KVM && !c.force && err.code == ENOTSUP)
			fputs("With --force it is tried all the same.\n", stderr);
	}
	if (hooks)
		hooks->ended(hooks, r < 0 ? &err : NULL);
	control_free(s.control);
	return status;
}

/* name: the one to take, and no other; or NULL. */
static int run_named(const struct run_opts *o, int words, char **word, const char *name,
		     struct detached *d)
{
	struct run_system system;
	struct err err = {0};
	int status;

	if (!words)
		return run(o, NULL, name, d, NULL);
	if (run_system_init(&system, o, words, word, &err) < 0) {
		log_error("%s: %s", word[0], err.text);
		return EXIT_TROUBLE;
	}
	status = run(o, &system, name, d, NULL);
	run_system_done(&system);
	return status;
}

int run_vm(const struct run_opts *o, struct run_hooks *h)
{
	return run(o, NULL, NULL, NULL, h);
}

struct words {
	const struct run_opts *opts;
	int words;
	char **word;
};

static int run_detached(void *ctx, const char *name, struct detached *d)
{
	const struct words *w = ctx;

	return run_named(w->opts, w->words, w->word, name, d);
}

int cmd_run(const void *opts, int words, char **word)
{
	const struct run_opts *o = opts;
	struct words w = {o, words, word};

	return o->detach ? detach_run((enum restart_policy)o->restart, run_detached, &w)
			 : run_named(o, words, word, NULL, NULL);
}
