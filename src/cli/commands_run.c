/* The table of 'holon run'. */
#include "cli/cli.h"

#include <errno.h>

#include "cli/detach.h"
#include "cli/disk_option.h"
#include "cli/limit_option.h"
#include "cli/run_confine.h"
#include "cli/run_devices.h"
#include "cli/run_firmware.h"
#include "cli/run_system.h"
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
	 "/dev/vdb and so on, or with bus=ata as /dev/sda. A comma in FILE or VALUE is written twice.",
	 .repeats = true, .parts = disk_parts},
	{"firmware", OPT_TEXT, offsetof(struct run_opts, firmware), "bios|uefi|FILE[,vars=FILE]",
	 "Start the machine as a PC does: SeaBIOS (bios), OVMF (uefi), or the ROM in FILE runs, and "
	 "starts what it finds on disks, CDs and the network. vars: the template of a UEFI's variables, "
	 "which the VM keeps. Default: only where there is no kernel to start at once; then by what is "
	 "on the disk."},
	{"cdrom", OPT_FILE, offsetof(struct run_opts, cdrom), "FILE",
	 "A CD-ROM drive (SATA) with the image in FILE, up to 4. Without --kernel the machine is "
	 "started by firmware then.",
	 .repeats = true},
	{"boot", OPT_TEXT, offsetof(struct run_opts, boot), "PLACE[,PLACE]...",
	 "Where firmware looks, in this order: disk, cdrom, net; menu: and its boot menu is shown. "
	 "Default: disk,cdrom,net."},
	{"vga", OPT_CHOICE, offsetof(struct run_opts, vga), "auto|on|off",
	 "A VGA with a text screen, which is drawn on the terminal, and a keyboard. When the guest "
	 "writes to its serial port that has the terminal instead; Ctrl-A s switches. auto: where a BIOS "
	 "starts the machine and standard output is a terminal. Default: auto."},
	{"memory", OPT_SIZE, offsetof(struct run_opts, memory), "SIZE",
	 "Guest memory, in bytes or with a suffix K, M, G or T. Default: 512M, or 1G for a system on a "
	 "disk."},
	{"cpus", OPT_COUNT, offsetof(struct run_opts, cpus), "N",
	 "How many vCPUs, up to 255; more than the host has share its processors. Default: 1."},
	{"cpu-cap", OPT_TEXT, offsetof(struct run_opts, limits.cpu_cap), "PERCENT%",
	 "Processor time that the VM gets at most, of one core: 50%, or 250% for two and a half."},
	{"vcpu-cap", OPT_TEXT, offsetof(struct run_opts, limits.vcpu_cap), "PERCENT%",
	 "The same for each of its vCPUs."},
	{"cpu-weight", OPT_COUNT, offsetof(struct run_opts, limits.cpu_weight), "N",
	 "Its share where VMs want more processor time than there is, against others' 100: 1 to "
	 "10000.",
	 .max = WEIGHT_MAX},
	{"cpu-pin", OPT_TEXT, offsetof(struct run_opts, limits.cpu_pin), "[vcpuN=]LIST",
	 "The processors of the host that its threads may run on, as 0-3,7; with vcpuN= those of one "
	 "vCPU.",
	 .repeats = true},
	{"memory-limit", OPT_SIZE, offsetof(struct run_opts, limits.memory_limit), "SIZE",
	 "Memory of the host that the VM may use in all: guest, translated code, Holon. What does not "
	 "fit is swapped out; where the host has no swap the VM is ended then. Needs control groups."},
	{"swap-limit", OPT_TEXT, offsetof(struct run_opts, limits.swap_limit), "SIZE",
	 "With --memory-limit: how much of it may be swapped out. Default: all."},
	{"io-weight", OPT_COUNT, offsetof(struct run_opts, limits.io_weight), "N",
	 "Its share of busy disks of the host, against others' 100: 1 to 10000.",
	 .max = WEIGHT_MAX},
	{"cgroup", OPT_CHOICE, offsetof(struct run_opts, limits.cgroup), "auto|off",
	 "Whether limits are held by control groups where the user may have some, or by Holon itself. "
	 "Default: auto."},
	{"cpu", OPT_CHOICE, offsetof(struct run_opts, cpu), CPUID_MODELS,
	 "What the guest sees of the processor: all that the host and the engine have, or exactly the "
	 "features of a level of the x86-64 psABI, the same on every host. host+la57: five-level paging as well, which the JIT engine has on any "
	 "host. Default: host."},
	{"engine", OPT_CHOICE, offsetof(struct run_opts, engine), ENGINES,
	 "What runs guest code: auto takes KVM where a probe finds it usable, else the JIT. "
	 "Default: auto."},
	{"jit-cache", OPT_SIZE, offsetof(struct run_opts, jit_cache), "SIZE",
	 "What the JIT engine may use for translated code, from 1M to 1G, again as much for its tables, "
	 "and for what it keeps to copy code from. When it is full, all code is dropped. A guest that "
	 "compiles much gains by more. Default: 128M."},
	{"force", OPT_FLAG, offsetof(struct run_opts, force), NULL,
	 "With --engine kvm: run even where the probe refuses."},
	{"vsock", OPT_TEXT, offsetof(struct run_opts, vsock), "PATH[,cid=N]",
	 "Connect sockets of guest and host (AF_VSOCK in the guest, whose address is N, or 3). On "
	 "the host, a program connects to the Unix socket PATH, writes \"CONNECT P\" and a newline, "
	 "and reads \"OK\", a number and a newline when the guest's port P accepted. What the guest "
	 "connects to port P of address 2 arrives at the Unix socket PATH_P."},
	{"port", OPT_TEXT, offsetof(struct run_opts, port), "NAME=unix:PATH",
	 "A port of that name, /dev/virtio-ports/NAME in the guest, that leads to the Unix socket "
	 "PATH; one client at a time. May be given several times.",
	 .repeats = true},
	{"share", OPT_FILE, offsetof(struct run_opts, share), "DIR:TAG[:ro][,KEY[=VALUE]]...",
	 "A folder of the host in the guest, which mounts it with 'mount -t virtiofs TAG /mnt'. ro: to "
	 "read only. May be given several times. A comma in DIR is written twice.",
	 .repeats = true, .parts = share_parts},
	{"console", OPT_CHOICE, offsetof(struct run_opts, console), "serial|virtio",
	 "What the terminal is in the guest: the serial port, or a virtio console (hvc0), which is "
	 "quicker and knows the terminal's size; the kernel must be told (console=hvc0). Default: "
	 "serial."},
	{"balloon", OPT_TEXT, offsetof(struct run_opts, balloon), "auto|idle|off|SIZE",
	 "How much of its memory the guest leaves to the host. auto: as much as it does not need, when the "
	 "host is short of memory; idle guests are asked first. idle: that, and also whenever it does "
	 "nothing. SIZE: it gets along with so much. Free memory goes back to the host in any case, but "
	 "with off: there is no balloon. Default: auto."},
	{"net", OPT_TEXT, offsetof(struct run_opts, net), "KIND[,KEY=VALUE]...",
	 "A network card, and where its wire leads: user (the host's network, without privileges; "
	 "restrict: nothing but the forwards of -p), tap[=IF], bridge=BR, switch=NAME (a private "
	 "switch of this user's VMs; uplink: which leads to the host's network too), or none. "
	 "Further keys: mac=ADDRESS, mtu=N, queues=N, rx=RATE, tx=RATE (bytes a second); for user also "
	 "tftp=DIR, whose files guests get by TFTP, and bootfile=FILE, the one of these that a guest "
	 "which boots from the network is told to take. Default: "
	 "user.",
	 .repeats = true},
	{"publish", OPT_TEXT, offsetof(struct run_opts, publish), "[ADDR:]HOST:GUEST[/udp]",
	 "What comes to this port of the host goes to the guest's. ADDR: the host's address to "
	 "listen at. Default: 127.0.0.1.",
	 .letter = 'p', .repeats = true},
	{"capture", OPT_FILE, offsetof(struct run_opts, capture), "FILE",
	 "Write the frames of the first card to a pcapng file, those of the next to FILE.1, and so "
	 "on."},
	{"confine", OPT_CHOICE, offsetof(struct run_opts, confine), CONFINE_CHOICES,
	 "Take from the VM's process, before the guest starts, all that it does not need: files, the network, "
	 "system calls, privileges. on: as far as this host allows (holon doctor tells); strict: or the VM does not "
	 "start; off: for finding faults only. Default: on."},
	{"virtio-off", OPT_TEXT, offsetof(struct run_opts, virtio_off), "LIST",
	 "Do without these features of virtio devices, though the guest's drivers may know them: a "
	 "comma-separated list of packed, event-idx and indirect."},
	{"no-reboot", OPT_FLAG, offsetof(struct run_opts, no_reboot), NULL,
	 "End with exit status 3 when the guest resets, instead of rebooting it."},
	{"debug-exit", OPT_FLAG, offsetof(struct run_opts, debug_exit), NULL,
	 "Give the guest port 0xf4: writing a byte v there ends Holon with exit status (v << 1) | 1. "
	 "Also a device that CPU test suites use to raise interrupt lines."},
	{"gdb", OPT_TEXT, offsetof(struct run_opts, gdb), "WHERE[,arch=i386]",
	 "Let GDB connect (target remote WHERE): WHERE is the path of a Unix socket that is made, or "
	 "tcp:[ADDRESS:]PORT, by default of 127.0.0.1. The vCPUs are its threads. Whoever connects "
	 "controls the VM. arch=i386: for a guest that never goes to 64-bit mode."},
	{"gdb-wait", OPT_FLAG, offsetof(struct run_opts, gdb_wait), NULL,
	 "With --gdb: hold the guest at its first instruction until GDB lets it go on."},
	{"name", OPT_TEXT, offsetof(struct run_opts, name), "NAME",
	 "The VM's name. An image's VM keeps its disk under it. Default: that of the image, the disk "
	 "or the kernel."},
	{"detach", OPT_FLAG, offsetof(struct run_opts, detach), NULL,
	 "Run in the background: return when the VM runs, and print its name. 'holon console' goes to "
	 "its console.",
	 .letter = 'd'},
	{"restart", OPT_CHOICE, offsetof(struct run_opts, restart), RESTART_POLICIES,
	 "With -d: start the VM again when it ends by a failure (on-failure), or whenever it ends "
	 "without being asked to (always). Default: no."},
	{"stop-timeout", OPT_NUMBER, offsetof(struct run_opts, stop_timeout), "SECONDS",
	 "How long the guest may take to power off when a signal presses its power button; after that "
	 "the VM is ended. Default: 30.",
	 .max = 86400},
	{"user", OPT_TEXT, offsetof(struct run_opts, user), "NAME",
	 "With an image or a disk: who may log in, by cloud-init. Default: your own name, for root "
	 "\"debian\"."},
	{"ssh-key", OPT_FILE, offsetof(struct run_opts, ssh_key), "FILE",
	 "A public key that opens SSH to that user. Default: those of ~/.ssh/id_*.pub.",
	 .repeats = true},
	{"password", OPT_TEXT, offsetof(struct run_opts, password), "TEXT",
	 "That user's password. Without one the serial console logs in by itself."},
	{"hostname", OPT_TEXT, offsetof(struct run_opts, hostname), "NAME",
	 "What the guest calls itself. Default: the VM's name."},
	{"user-data", OPT_FILE, offsetof(struct run_opts, user_data), "FILE",
	 "For cloud-init, passed on as it is, instead of the user, the keys and the password."},
	{"ephemeral", OPT_FLAG, offsetof(struct run_opts, ephemeral), NULL,
	 "Write to a disk that is thrown away at the end."},
	{"fresh", OPT_FLAG, offsetof(struct run_opts, fresh), NULL,
	 "Forget the disk that the VM has and begin with the image again."},
	{0}};

const struct run_opts run_defaults = {
	.engine = ENGINE_AUTO,
	.cpus = 1,
	.stop_timeout = 30,
};

static int check(const void *opts, int words, char **word, struct err *e)
{
	const struct run_opts *o = opts;

	int r;

	if (!o->kernel && !words && !o->firmware && !o->cdrom.n)
		return err_set(
			e, EINVAL,
			"an image (debian), a disk, --kernel FILE, --cdrom FILE or --firmware is "
			"missing");
	if (words > 1 && !run_oci_is(word[0]))
		return err_set(e, EINVAL,
			       "unexpected word '%s': a command goes with oci:IMAGE alone",
			       word[1]);
	if (o->gdb_wait && !o->gdb)
		return err_set(e, EINVAL, "--gdb-wait: say with --gdb where GDB is to connect");
	if (o->restart && !o->detach)
		return err_set(e, EINVAL, "--restart goes with -d");
	r = limit_options_check(&o->limits, e);
	if (r == 0)
		r = run_firmware_check(o, e);
	return r < 0 ? r : run_system_check(o, words, e);
}

const struct command run_command = {
	.name = "run",
	.words = "[IMAGE|DISK|oci:IMAGE [-- COMMAND...]]",
	.summary = "Run a virtual machine, on this terminal or in the background",
	.text = "IMAGE is one of 'holon image ls', or debian, which is built on first use; the VM\n"
		"gets a thin disk over it, which stays. DISK is a file with a system on it. The\n"
		"kernel comes out of the disk, at each start anew; with --kernel the disk is only\n"
		"there.\n"
		"\n"
		"oci:IMAGE is a container's image: a directory in OCI's layout, a tar archive of\n"
		"one or by docker save, both with :TAG if they hold several, or a reference to a\n"
		"registry, such as alpine:3 or ghcr.io/OWNER/NAME. Its command, or COMMAND in its\n"
		"place, runs in a VM with Holon's kernel, and its exit status is Holon's. The\n"
		"disk is thrown away at the end unless --name names the VM.\n"
		"\n"
		"The guest's serial console is the terminal. Keys:\n"
		"  Ctrl-A x       end the VM at once\n"
		"  Ctrl-A h       list the keys\n"
		"  Ctrl-A s       with --vga: switch between screen and serial port\n"
		"  Ctrl-A r       with --vga: press Ctrl-Alt-Del\n"
		"  Ctrl-A Ctrl-A  send one Ctrl-A to the guest\n"
		"SIGTERM and SIGINT press the guest's power button; a second one, or no power-off\n"
		"for --stop-timeout seconds, ends the VM.\n"
		"SIGUSR1 shows on standard error what the VM and its guest do with memory.\n"
		"\n"
		"Exit status: 0 after the guest powers off or Ctrl-A x; 3 after it resets with\n"
		"--no-reboot or ends in a triple fault; 1 for a usage or set-up error; 128 + N\n"
		"after a second signal N, or one that the guest did not follow.\n",
	.option = run_options,
	.defaults = &run_defaults,
	.opts_size = sizeof(struct run_opts),
	.max_words = WORDS_MANY,
	.complete = "debian",
	.check = check,
	.run = cmd_run,
};
