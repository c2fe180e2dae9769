/* The table of 'holon run'. */
#include "cli/cli.h"

#include <errno.h>

#include "cli/disk_option.h"
#include "machine/machine.h"

/* The order of enum engine_choice (machine/machine.h). */
#define ENGINES "auto|jit|kvm"

static const struct option run_options[] = {
	{"kernel", OPT_FILE, offsetof(struct run_opts, kernel), "FILE",
	 "The kernel: a Linux bzImage, an ELF vmlinux with a PVH entry, or a multiboot 1 image."},
	{"initrd", OPT_FILE, offsetof(struct run_opts, initrd), "FILE",
	 "The initial RAM disk. For multiboot: modules, \"FILE[ ARGUMENTS][,FILE...]\"."},
	{"append", OPT_TEXT, offsetof(struct run_opts, append), "TEXT",
	 "The kernel's command line."},
	{"disk", OPT_FILE, offsetof(struct run_opts, disks), "FILE[,KEY[=VALUE]]...",
	 "A disk: an image file, a block device or an NBD URI. The guest has them as /dev/vda, "
	 "/dev/vdb and so on. A comma in FILE or VALUE is written twice.",
	 .repeats = true, .parts = disk_parts},
	{"memory", OPT_SIZE, offsetof(struct run_opts, memory), "SIZE",
	 "Guest memory, in bytes or with a suffix K, M, G or T. Default: 512M."},
	{"cpus", OPT_COUNT, offsetof(struct run_opts, cpus), "N",
	 "How many vCPUs. Default: 1. The JIT engine runs one."},
	{"engine", OPT_CHOICE, offsetof(struct run_opts, engine), ENGINES,
	 "What runs guest code: auto takes KVM where a probe finds it usable, else the JIT. "
	 "Default: auto."},
	{"jit-cache", OPT_SIZE, offsetof(struct run_opts, jit_cache), "SIZE",
	 "What the JIT engine may use for translated code, from 1M to 1G, and again as much for its "
	 "tables; when it is full, translation starts afresh. Default: 128M."},
	{"force", OPT_FLAG, offsetof(struct run_opts, force), NULL,
	 "With --engine kvm: run even where the probe refuses."},
	{"virtio-off", OPT_TEXT, offsetof(struct run_opts, virtio_off), "LIST",
	 "Do without these features of virtio devices, though the guest's drivers may know them: a "
	 "comma-separated list of packed, event-idx and indirect."},
	{"no-reboot", OPT_FLAG, offsetof(struct run_opts, no_reboot), NULL,
	 "End with exit status 3 when the guest resets, instead of rebooting it."},
	{"debug-exit", OPT_FLAG, offsetof(struct run_opts, debug_exit), NULL,
	 "Give the guest port 0xf4: writing a byte v there ends Holon with exit status (v << 1) | 1. "
	 "Also a device that CPU test suites use to raise interrupt lines."},
	{"name", OPT_TEXT, offsetof(struct run_opts, name), "NAME",
	 "The VM's name, in messages. Default: the kernel's file name."},
	{0}};

static const struct run_opts run_defaults = {
	.engine = ENGINE_AUTO,
	.cpus = 1,
	.memory = MIB(512),
};

static int check(const void *opts, int words, char **word, struct err *e)
{
	const struct run_opts *o = opts;

	return o->kernel ? 0 : err_set(e, EINVAL, "--kernel FILE is missing");
}

const struct command run_command = {
	.name = "run",
	.summary = "Run a virtual machine on this terminal",
	.text = "The guest's serial console is the terminal. Keys:\n"
		"  Ctrl-A x       end the VM at once\n"
		"  Ctrl-A h       list the keys\n"
		"  Ctrl-A Ctrl-A  send one Ctrl-A to the guest\n"
		"SIGTERM and SIGINT press the guest's power button; a second one ends the VM.\n"
		"\n"
		"Exit status: 0 after the guest powers off or Ctrl-A x; 3 after it resets with\n"
		"--no-reboot or ends in a triple fault; 1 for a usage or set-up error; 128 + N\n"
		"after a second signal N.\n",
	.option = run_options,
	.defaults = &run_defaults,
	.opts_size = sizeof(struct run_opts),
	.check = check,
	.run = cmd_run,
};
