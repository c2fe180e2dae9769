/* holon run: one machine, this terminal, and the signals of the people around it.
 *
 * Signals come through a signalfd on the machine's loop, blocked in every thread, so that
 * what they cause is ordinary code. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/console_in.h"
#include "cli/console_out.h"
#include "cli/disk_option.h"
#include "cli/run_devices.h"
#include "cli/run_firmware.h"
#include "cli/run_system.h"
#include "cli/net_option.h"
#include "cli/tty_mode.h"
#include "machine/machine.h"

static const int handled[] = {SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT, SIGUSR1, SIGWINCH};

struct session {
	const char *name;
	struct machine *machine;
	struct console_out out;
	struct console_in in;
	struct tty_mode tty;
	struct loop_fd signals;
	sigset_t old_mask;
	unsigned asked_to_end; /* how many of SIGTERM and SIGINT came */
	int status_if_stopped;
};

static void stop(struct session *s, int status)
{
	s->status_if_stopped = status;
	console_out_abandon(&s->out);
	machine_stop(s->machine);
}

/* --- signals --- */

static void asked_to_end(struct session *s, int sig)
{
	if (s->asked_to_end++) {
		log_info("%s: ended by a second signal", s->name);
		stop(s, EXIT_SIGNALLED + sig);
		return;
	}
	machine_power_button(s->machine);
	if (!machine_power_button_armed(s->machine))
		log_warn("%s: the guest does not listen to its power button; "
			 "a second signal ends it",
			 s->name);
}

static void suspend(struct session *s)
{
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
}

static void act_on_signal(struct session *s, int sig)
{
	switch (sig) {
	case SIGTERM:
	case SIGINT: asked_to_end(s, sig); break;
	case SIGHUP: stop(s, EXIT_SIGNALLED + sig); break;
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

static void key_pressed(void *ctx, enum console_key key)
{
	struct session *s = ctx;

	if (key == KEY_QUIT)
		stop(s, EXIT_DONE);
	else if (key == KEY_HELP)
		fputs("\nCtrl-A x       end the VM at once\n"
		      "Ctrl-A h       this list\n"
		      "Ctrl-A Ctrl-A  send one Ctrl-A to the guest\n",
		      stderr);
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
	case END_DEBUG_EXIT: return (int)((r->value << 1 | 1) & 0xff);
	case END_STOPPED: return s->status_if_stopped;
	case END_RESET:
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

static int run_attached(struct session *s, struct machine_result *result, struct err *e)
{
	struct loop *loop = machine_loop(s->machine);
	int r = loop_add(loop, &s->signals, EPOLLIN, e);

	if (r < 0 || (r = console_out_attach(&s->out, loop, e)) < 0)
		return r;
	tty_mode_raw(&s->tty, STDIN_FILENO);
	terminal_resized(s);
	console_in_start(&s->in, STDIN_FILENO, s->machine, key_pressed, s);

	r = machine_run(s->machine, result, e);

	console_in_stop(&s->in);
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
	r = run_attached(s, result, e);
	machine_engine_stats(s->machine, stats, sizeof stats);
	if (*stats)
		log_debug("engine %s: %s", machine_engine(s->machine), stats);
	machine_free(s->machine);
	return r;
}

static int run_session(struct session *s, const struct machine_config *c,
		       struct machine_result *result, struct err *e)
{
	int r = catch_signals(s, e);

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

/* system: what is on the disk that was named; NULL: there is but a kernel. */
static int run(const struct run_opts *o, struct run_system *system)
{
	struct session s = {.name = system ? system->name : name_of(o), .signals.fd = -1};
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
		.kernel_source = system && !o->kernel ? &system->source : NULL,
		.debug_exit = o->debug_exit,
		.no_reboot = o->no_reboot,
		.serial_out = &s.out.sink,
	};
	struct machine_result result = {.end = END_ERROR};
	struct disk_options disks = {0};
	struct run_devices devices = {0};
	struct net_options net = {0};
	struct run_firmware firmware = {0};
	struct err err = {0};
	int r = machine_parse_virtio_off(o->virtio_off, &c.virtio_off, &err);

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
	if (r == 0)
		r = console_out_init(&s.out, STDOUT_FILENO, &err);
	if (r == 0) {
		r = run_session(&s, &c, &result, &err);
		console_out_done(&s.out);
	}
	disk_options_done(&disks);
	run_devices_done(&devices);
	net_options_done(&net);
	run_firmware_done(&firmware);
	if (r < 0) {
		log_error("%s: %s", s.name, err.text);
		if (c.engine == ENGINE_KVM && !c.force && err.code == ENOTSUP)
			fputs("With --force it is tried all the same.\n", stderr);
		return EXIT_TROUBLE;
	}
	return report(&s, &result);
}

int cmd_run(const void *opts, int words, char **word)
{
	const struct run_opts *o = opts;
	struct run_system system;
	struct err err = {0};
	int status;

	if (!words)
		return run(o, NULL);
	if (run_system_init(&system, o, word[0], &err) < 0) {
		log_error("%s: %s", word[0], err.text);
		return EXIT_TROUBLE;
	}
	status = run(o, &system);
	run_system_done(&system);
	return status;
}
