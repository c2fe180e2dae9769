/* machine: builds a VM from a config and runs it. The only room that knows every room
 * below it. Two machines in one process work. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"
#include "block/block.h"
#include "chipset/device.h"
#include "cpu/cpuid_model.h"
#include "cpu/x86_state.h"
#include "net/net.h"
#include "resource/overcommit.h"
#include "resource/resource.h"

/* Where a kernel comes from that is looked for anew at each start of the guest, so that one
 * which the guest installed is the next one booted. get: on the thread that builds and runs
 * the machine, with no vCPU running; the texts are the source's and stay until the next get. */
struct kernel_source {
	int (*get)(struct kernel_source *s, const char **kernel, const char **initrd,
		   const char **append, struct err *e);
};

enum engine_choice { ENGINE_AUTO, ENGINE_JIT, ENGINE_KVM };

#define MACHINE_DISKS_MAX     16u
#define MACHINE_CDS_MAX       4u
#define MACHINE_ATA_DISKS_MAX 4u

enum disk_bus { DISK_VIRTIO, DISK_ATA };

struct machine_disk {
	struct block_opts image;
	const char *serial; /* at most 20 bytes; NULL: none */
	enum block_engine aio;
	enum disk_bus bus;
	unsigned queues; /* virtio only; 0: one per vCPU, up to 4 */
};

#define MACHINE_PORTS_MAX 30

struct machine_port_config {
	const char *name; /* /dev/virtio-ports/NAME in a Linux guest */
	const char *path; /* of the Unix socket that it leads to */
};

#define MACHINE_NETS_MAX 8u

#define MACHINE_SHARES_MAX 8u

struct machine_share {   /* a folder of the host */
	const char *dir; /* its path */
	int fd;          /* it itself, which stays the caller's; -1: dir is opened */
	const char *tag; /* by which the guest mounts it */
	bool read_only, writeback;
	unsigned uid, gid; /* in the guest, of the user's files where ids are not the host's */
};

struct machine_net {  /* a network card */
	bool has_mac; /* else made from the VM's name */
	uint8_t mac[6];
	uint16_t queues; /* pairs; 0: 1 */
	struct net_opts net;
};

enum machine_boot_from { BOOT_FROM_DISK, BOOT_FROM_CDROM, BOOT_FROM_NET, BOOT_FROM_KINDS };

/* A BIOS or UEFI that starts the machine from its disks, as on a PC; instead of a kernel. */
struct machine_firmware {
	const char *code;    /* path of its ROM; NULL: there is none */
	const char *net_rom; /* path of a BIOS's driver for network cards; NULL: it has none */
	const char *vars;    /* path of what the flash below the ROM holds; NULL: there is none */
	const char *vga_rom; /* path of a BIOS's part for the VGA; NULL: it knows none */
	bool keep_vars; /* what is written there goes to that file; else it is lost at the end */
	enum machine_boot_from order[BOOT_FROM_KINDS]; /* [orders]: what is tried first */
	unsigned orders;
	bool menu;      /* its boot menu, for people: it waits for a key */
	bool no_serial; /* a BIOS's screen and keyboard are not the serial port */
	bool debug;     /* what it writes to its debug port is logged */
};

/* Told on the loop thread what happens to the machine as a whole, but its end. */
enum machine_news { MACHINE_PAUSED, MACHINE_RESUMED, MACHINE_WAS_RESET };
enum machine_memory_what {
	MACHINE_BALLOON, /* bytes of of_bytes are asked for from now on; worse: more than before */
	MACHINE_HOST_LEVEL,  /* the host has bytes of of_bytes left; why: its level */
	MACHINE_FAULT_STORM, /* count pages of ours a second come back from disks */
};
struct machine_memory_news {
	enum machine_memory_what what;
	const char *why;
	bool worse;
	uint64_t bytes, of_bytes, count;
};
struct machine_watcher {
	void (*news)(struct machine_watcher *w, enum machine_news what);
	void (*memory)(struct machine_watcher *w,
		       const struct machine_memory_news *n); /* or NULL */
	/* A disk or card came, or is gone. May be NULL. */
	void (*part)(struct machine_watcher *w, const char *id, bool there);
};

struct machine_config {
	const char *name;
	struct machine_watcher *watcher; /* or NULL */
	enum engine_choice engine;
	bool force; /* --engine=kvm although the probe refuses */
	unsigned cpus;
	enum cpuid_model cpu_model;
	uint64_t memory_bytes;
	uint64_t jit_cache_bytes; /* 0: the JIT's default */
	const char *kernel, *initrd, *append;
	struct kernel_source *kernel_source; /* instead of these three; NULL: there are these */
	struct machine_firmware firmware;    /* instead of all of these */
	bool vga;                            /* a VGA with text, and a keyboard */
	bool keyboard;                       /* one without a VGA */
	bool debug_exit;                     /* port 0xf4 present, and the test device */
	bool no_reboot;
	uint64_t virtio_off; /* feature bits (VIRTIO_F_...) that no virtio device offers */
	struct byte_sink *serial_out;
	const struct machine_disk *disk; /* [disks]: /dev/vda or sda and so on */
	unsigned disks;
	const char *cdrom[MACHINE_CDS_MAX]; /* [cdroms]: files with images of CDs */
	unsigned cdroms;
	bool console_virtio; /* input goes to a virtio console, whose output comes out here too */
	struct machine_port_config port[MACHINE_PORTS_MAX];
	unsigned ports;
	bool no_balloon;
	enum overcommit_mode overcommit;
	uint64_t balloon_bytes;        /* what the guest is asked to leave to the host */
	const char *vsock;             /* path of the socket by which the host connects; or NULL */
	uint64_t vsock_cid;            /* 0: the default */
	const char *gdb;               /* where debuggers connect (gdb_socket.h); or NULL */
	bool gdb_wait;                 /* nothing runs before one says so */
	bool gdb_i386;                 /* the guest never goes to 64-bit mode */
	const struct machine_net *net; /* [nets] */
	unsigned nets;
	struct resource *resource; /* what it may use of the host; NULL: all */
	const struct cpu_pin *pin; /* [pins]: of its vCPUs */
	unsigned pins;
	struct machine_share share[MACHINE_SHARES_MAX];
	unsigned shares;
};

enum machine_end {
	END_POWER_OFF,
	END_RESET,
	END_TRIPLE_FAULT,
	END_DEBUG_EXIT,
	END_STOPPED,
	END_ERROR
};

struct machine_result {
	enum machine_end end;
	uint32_t value;         /* END_DEBUG_EXIT: the byte written */
	struct x86_state state; /* END_RESET, END_TRIPLE_FAULT: vCPU 0 (or the faulting one) then */
};

struct machine;

/* "packed,event-idx,indirect" or a part of it, or NULL, into virtio_off. */
WARN_UNUSED int machine_parse_virtio_off(const char *list, uint64_t *features, struct err *e);

/* Builds everything and loads the kernel; nothing runs yet, and no thread has been started. */
WARN_UNUSED int machine_new(struct machine **out, const struct machine_config *c, struct err *e);
void machine_free(struct machine *m); /* accepts NULL; not while machine_run runs */

/* The files of its disks, those below others too; URIs of disks elsewhere. */
void machine_each_disk_file(struct machine *m, void (*each)(void *ctx, const char *file),
			    void *ctx);

/* "kvm" or "jit", and the probe's one line about why. Valid until machine_free. */
const char *machine_engine(const struct machine *m);
const char *machine_engine_reason(const struct machine *m);

/* One line for people on what the engine did since the last reset; empty where it counts nothing.
 * Not while machine_run runs. */
void machine_engine_stats(const struct machine *m, char *to, uint32_t len);

/* Runs the VM, once, on this thread's loop and its own vCPU threads until it ends; reboots in
 * between unless no_reboot. END_ERROR comes with a negative return and its cause in e. */
WARN_UNUSED int machine_run(struct machine *m, struct machine_result *r, struct err *e);

/* From any thread, also from a signal handler. */
void machine_power_button(struct machine *m);
/* Whether the guest listens to the button. Any thread, no signal handler. */
bool machine_power_button_armed(struct machine *m);
/* Likewise from a signal handler. */
void machine_stop(struct machine *m); /* machine_run returns END_STOPPED */

/* Stops all vCPUs and the guest's time, until resumed for the same reason and no other is left.
 * Both return when it is done. Disks and networks go on with what they have. Loop thread, also
 * before machine_run: it then starts paused. */
enum machine_pause {
	MACHINE_PAUSE_ASKED = 1,    /* by people or programs */
	MACHINE_PAUSE_NO_SPACE = 2, /* a disk waits for space on the host; the machine's own */
	MACHINE_PAUSE_DEBUGGER = 4, /* likewise: a debugger looks at it */
};
void machine_pause(struct machine *m, enum machine_pause why);
void machine_resume(struct machine *m, enum machine_pause why);
unsigned machine_paused(const struct machine *m); /* the reasons; 0: it is not */

/* Starts the guest anew, as its own reset does (with no_reboot: ends the machine). Loop thread, while
 * machine_run runs. */
void machine_reset(struct machine *m);

/* What a machine does and has; counts are since it was made. */
struct machine_disk_stats {
	char name[8];
	uint64_t reads, writes, read_bytes, write_bytes;
};
struct machine_net_stats {
	uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes; /* as the guest sees it */
};
struct machine_stats {
	uint64_t guest_ns; /* its time: not while it is paused */
	uint64_t vcpu_ns;  /* processor time of the vCPUs' threads together */
	unsigned cpus;
	uint64_t memory_bytes, memory_used_bytes; /* of guest RAM; on the host */
	bool has_balloon;
	uint64_t balloon_bytes, balloon_target_bytes, guest_free_bytes, guest_available_bytes;
	struct machine_disk_stats disk[MACHINE_DISKS_MAX];
	unsigned disks;
	struct machine_net_stats net[MACHINE_NETS_MAX];
	unsigned nets;
	struct resource_limits limits;
	uint64_t major_faults; /* of the process */
	uint64_t throttled_ns; /* that its vCPUs waited for the caps that Holon itself holds */
};
void machine_get_stats(struct machine *m, struct machine_stats *to); /* loop thread */

/* Other settings while it runs; loop thread. -ENOENT: there is no such disk or card; -ENOTSUP: there
 * is no balloon. */
WARN_UNUSED int machine_set_balloon(struct machine *m, uint64_t keep_bytes, struct err *e);
/* The disk's image is the one in file from now on, opened as the one before was, which may be the same
 * file with another size; the guest is told the size. Fails with the old one in place. */
WARN_UNUSED int machine_set_disk_image(struct machine *m, const char *disk, const char *file,
				       struct err *e);
struct balloon_report; /* virtio/balloon.h */
WARN_UNUSED int machine_get_balloon(struct machine *m, struct balloon_report *to, struct err *e);
WARN_UNUSED int machine_set_disk_limits(struct machine *m, const char *disk,
					const struct block_limits *l, struct err *e);

struct resource *machine_resource(struct machine *m); /* or NULL */
/* Of the machine as a whole, and of each vCPU: thousandths of a core, 0: none. -ENOTSUP: it has no struct resource. */
WARN_UNUSED int machine_set_cap(struct machine *m, unsigned cap, struct err *e);
WARN_UNUSED int machine_set_vcpu_cap(struct machine *m, unsigned cap, struct err *e);
WARN_UNUSED int machine_pin(struct machine *m, const struct cpu_pin *pin, struct err *e);
/* card: its number. */
WARN_UNUSED int machine_set_net_limits(struct machine *m, unsigned card,
				       const struct net_limits *rx, const struct net_limits *tx,
				       struct err *e);

/* --- what comes and goes while it runs (docs/hotplug.md) --- */

#define MACHINE_ID_LEN    8
#define MACHINE_PARTS_MAX (MACHINE_DISKS_MAX + MACHINE_NETS_MAX)

enum machine_part_kind { MACHINE_DISK, MACHINE_NET };
struct machine_part {
	char id[MACHINE_ID_LEN]; /* "vda", "net0" */
	enum machine_part_kind kind;
	unsigned slot;    /* PCI device number; 0: it is no function of its own */
	bool asked;       /* the guest was asked to let go of it */
	bool fixed;       /* the guest cannot */
	const char *file; /* of a disk; as long as that is there */
	uint64_t size;
	bool read_only;
};
/* Loop thread. Returns how many. */
unsigned machine_parts(const struct machine *m, struct machine_part to[MACHINE_PARTS_MAX]);

/* done: the disk is there, as id, and the guest is told; or r is a negative errno, and e says why. On
 * the loop thread; when the machine is freed before, on the thread that does that. */
struct machine_attached {
	void (*done)(struct machine_attached *a, int r, const char *id, const struct err *e);
};
/* Loop thread, while machine_run runs. 0: done is called, and all of c stays until then. */
WARN_UNUSED int machine_attach_disk(struct machine *m, const struct machine_disk *c,
				    struct machine_attached *to, struct err *e);
/* Likewise; the guest is told when it returns. */
WARN_UNUSED int machine_attach_net(struct machine *m, const struct machine_net *c,
				   char id[MACHINE_ID_LEN], struct err *e);
/* Asks the guest to let go of it, which may take as long as the guest likes, a reset of the machine
 * at the latest; pull: takes it away, whatever the guest does with it. -ENOENT: there is none. */
WARN_UNUSED int machine_detach(struct machine *m, const char *id, bool pull, struct err *e);

/* The guest goes on from a state that another machine goes on from too, or did: it is told, so
 * that the two make different random numbers. Any thread. */
WARN_UNUSED int machine_new_generation(struct machine *m, struct err *e);

/* What people may want to know of a machine that runs, in a few lines. Loop thread. */
void machine_tell(struct machine *m, char *to, uint32_t len);

/* Of the terminal, for a virtio console. Any thread. */
void machine_console_size(struct machine *m, unsigned columns, unsigned rows);
/* The VGA's screen; false: there is no VGA. Any thread. */
struct vga_text;
bool machine_screen(struct machine *m, struct vga_text *t);
/* A key of the keyboard goes down or up: its bytes of scan code set 2. False: there is no room
 * for them now; offer them again after room(ctx) as below. Loop thread. */
WARN_UNUSED bool machine_key(struct machine *m, const uint8_t *codes, uint32_t len);
/* Console input; returns how many bytes were taken; the rest is offered again after
 * room(ctx). Loop thread. */
uint32_t machine_serial_input(struct machine *m, const uint8_t *bytes, uint32_t len);
void machine_on_serial_room(struct machine *m, void (*room)(void *ctx), void *ctx);
struct loop *machine_loop(struct machine *m); /* to add terminal descriptors to */
