/* machine_priv: what the files of the machine share.
 *
 *   machine.c          config in, machine out; takes it down again
 *   machine_devices.c  the chipset
 *   machine_virtio.c   virtio devices and their I/O threads
 *   machine_disks.c    the images of disks, and the pause when the host has no space for them
 *   machine_ata.c      disks and CD-ROM drives on an AHCI controller
 *   machine_shares.c   folders of the host
 *   machine_net.c      network cards and where their wires lead
 *   machine_plug.c     disks and cards that come and go while the guest runs
 *   machine_engine.c   the engine's VM, its vCPUs and LAPICs; made anew for each reset
 *   machine_boot.c     ACPI tables and kernel into RAM, entry state into vCPU 0
 *   machine_firmware.c what firmware needs that starts the machine instead
 *   machine_flash.c    the flash with a UEFI's variables, and its file
 *   machine_run.c      the life cycle: run, requests, reboot, end
 *   machine_pause.c    all stands still, and goes on
 *   machine_stats.c    what it does and has, and what can be changed of it
 *   machine_limits.c   how much of the processors its vCPUs may have
 *   machine_gdb.c      the machine as a debugger has it
 *   gdb_socket.c       where that connects
 *   irq_router.c       interrupt wires between the two
 *   machine_overcommit.c  how much memory the guest is to do without
 *   vcpu_thread.c      a vCPU's thread
 *   bandwidth.c        the arithmetic of a cap
 *
 * Threads: one, the loop thread, builds, runs machine_run and frees. vCPU threads run guest
 * code and through it device code. What happens to the machine as a whole (power off,
 * reset, the end) is only noted by other threads (in the atomics below) and done by the loop
 * thread with every vCPU parked. */
#pragma once

#include <stdatomic.h>

#include "base/io_thread.h"
#include "base/loop.h"
#include "boot/boot.h"
#include "chipset/chipset.h"
#include "cpu/cpuid.h"
#include "cpu/engine.h"
#include "machine/bandwidth.h"
#include "machine/engine_choice.h"
#include "machine/irq_router.h"
#include "machine/machine.h"
#include "machine/vcpu_thread.h"
#include "virtio/console.h"
#include "virtio/pci.h"

#define MACHINE_MAX_CPUS 255u        /* 8-bit APIC IDs, 255 is the broadcast */
#define PCI_SLOTS        32u         /* device numbers of PCI bus 0 */
#define APIC_HZ          1000000000u /* input of the LAPICs' timers, stated in CPUID */

/* PCI device numbers of the virtio devices that there is at most one of (machine_virtio.c) */
enum { SLOT_RNG = 1, SLOT_PORTS, SLOT_BALLOON, SLOT_VSOCK, SLOT_CONSOLE, SLOT_AHCI };
#define SLOT_SHARE 0x07u /* shares: one function each */
#define SLOT_NET   0x08u /* the first of the network cards */
#define SLOT_DISK  0x10u /* the first of the disks */
#define SLOT_LPC   0x1fu /* with firmware: the LPC bridge */
/* Beside the devices of bus 0, those that are functions of one of them. */
#define SLOT_SHARE_FUNCTIONS PCI_SLOTS
#define VIRTIO_SLOTS         (PCI_SLOTS + MACHINE_SHARES_MAX)

enum machine_slot {
	DEV_PIC,
	DEV_IOAPIC,
	DEV_PIT,
	DEV_RTC,
	DEV_UART,
	DEV_I8042,
	DEV_VGA, /* if there is one */
	DEV_PM,
	DEV_PLUG,
	DEV_PCI_HOST,
	DEV_FW_CFG,
	DEV_DEBUGCON,
	DEV_VMGENID,
	DEV_DEBUG_EXIT,
	DEV_TEST_DEVICE,
	DEV_SLOTS
};

struct machine_cpu {
	struct machine *m;
	struct vcpu *vcpu;
	struct lapic *lapic; /* NULL: the engine has its own */
	struct vcpu_thread thread;
	atomic_bool debug_stop; /* it returned with VCPU_BREAKPOINT */
	struct bandwidth bandwidth;
	cpu_set_t *pin; /* NULL: as the machine's other threads */
};

/* Bits of machine.signals: wishes that may come from a signal handler. */
#define SIGNAL_STOP   1u
#define SIGNAL_BUTTON 2u
#define SIGNAL_DEBUG  4u /* a vCPU has debug_stop set */

struct machine {
	char *name, *kernel, *initrd, *append; /* the last two may be NULL */
	struct kernel_source *kernel_source;   /* instead of these; or NULL */
	char *firmware;                        /* instead of all these; or NULL */
	struct machine_watcher *watcher;       /* or NULL */
	bool no_reboot, debug_exit, force, vga, keyboard;
	uint64_t jit_cache_bytes;
	unsigned cpus;

	struct guest_mem *mem;
	struct bus *bus;
	struct loop *loop;
	struct cpuid_table cpuid;

	struct irq_router irq;
	struct device *device[DEV_SLOTS];
	struct virtio_pci *virtio[VIRTIO_SLOTS]; /* by device number; then shares */
	struct net_port *wire[MACHINE_NETS_MAX];
	struct io_thread *virtio_io[VIRTIO_SLOTS]; /* on which it lives */
	struct machine_plug *plug;
	struct io_thread *io[1 + VIRTIO_SLOTS]; /* [0]: the shared one */
	unsigned ios;
	uint64_t virtio_off;
	struct machine_image *image[MACHINE_DISKS_MAX]; /* by disk; NULL: none */
	bool disks_handed_over;                         /* each to its I/O thread */
	unsigned full_disks;                            /* loop thread: how many wait for space */
	struct console_end *console_end; /* where console input goes; NULL: to the serial port */
	struct byte_sink *console_out;   /* where its output goes */
	struct byte_sink serial_null;    /* where the serial port leads when nobody listens */
	struct machine_ata *ata;         /* NULL: there are no such drives */
	struct device *lpc;              /* with firmware; else NULL */
	struct machine_flash *flash;     /* likewise, if it has variables */
	struct byte_sink debug_sink;     /* what firmware says, by lines */
	char debug_line[200];
	uint32_t debug_len;
	bool firmware_debug;

	const struct engine *engine;
	char reason[ENGINE_REASON_LEN];
	uint64_t wall_epoch_ns;
	struct engine_env engine_env; /* the VM keeps a pointer to it */
	struct engine_vm *vm;
	struct lapic_bus *lapic_bus; /* NULL: the engine has its own LAPICs */
	struct machine_cpu *cpu;     /* [cpus] */
	struct vcpu_owner vcpu_owner;

	struct machine_port port; /* by which devices ask */
	int wake_fd;              /* eventfd: something below changed */
	struct loop_fd wake;
	atomic_uint signals;
	/* The first thing the guest asked for or ran into since the last start; the others
	 * find it taken. 0: nothing; else enum machine_event, then the value. */
	_Atomic uint64_t event;
	struct x86_state event_state; /* written by the one who took event, if it has one */
	struct err event_err;         /* likewise */
	atomic_bool event_ready;      /* the two above are complete */

	struct resource *resource; /* NULL: there are no limits, nor will be */
	struct bandwidth bandwidth;
	struct timer bandwidth_timer;
	struct overcommit overcommit;
	struct host_memory host_memory;
	struct timer overcommit_timer;
	uint64_t major_faults;
	bool fault_storm, trimmed;

	struct machine_gdb *gdb; /* NULL: no debugger can connect */

	bool ended;      /* loop thread's own */
	unsigned paused; /* likewise: enum machine_pause */
	struct machine_result result;
	struct err result_err;

	struct loop_call room_call;
	atomic_bool room_posted;
	void (*room)(void *ctx);
	void *room_ctx;
};

/* machine_devices.c */
WARN_UNUSED int machine_make_devices(struct machine *m, struct byte_sink *serial_out,
				     struct err *e);
void machine_reset_devices(struct machine *m);
void machine_free_devices(struct machine *m);

/* machine_virtio.c */
WARN_UNUSED int machine_make_virtio(struct machine *m, const struct machine_config *c,
				    struct err *e);
WARN_UNUSED int machine_start_io(struct machine *m, struct err *e); /* I/O threads run */
/* make gets opts, what its part of the config says. thread: the name of the device's own I/O
 * thread, which has that role; NULL: the shared one. */
WARN_UNUSED int machine_add_virtio(struct machine *m, unsigned slot, enum thread_role role,
				   const char *thread,
				   int (*make)(struct virtio_device **out,
					       const struct virtio_env *env, const void *opts,
					       struct err *e),
				   const void *opts, struct err *e);
WARN_UNUSED int machine_make_function(struct machine *m, unsigned slot, struct io_thread *io,
				      int (*make)(struct virtio_device **out,
						  const struct virtio_env *env, const void *opts,
						  struct err *e),
				      const void *opts, struct err *e);
/* vCPUs parked: returns when no device of them does anything, until machine_reset_virtio. Before
 * the engine goes, to which they send interrupts. */
void machine_pause_virtio(struct machine *m);
void machine_hand_over_disks(struct machine *m); /* all are open: to their threads */
void machine_reset_virtio(struct machine *m);
void machine_stop_io(struct machine *m); /* for good */
void machine_free_virtio(struct machine *m);

WARN_UNUSED int machine_new_io(struct machine *m, struct io_thread **out, enum thread_role role,
			       const char *name, struct err *e);

/* machine_ata.c: likewise paused, reset and freed with the virtio devices */
WARN_UNUSED int machine_make_ata(struct machine *m, const struct machine_config *c, struct err *e);
void machine_pause_ata(struct machine *m);
void machine_reset_ata(struct machine *m);
void machine_free_ata(struct machine *m); /* before the images of its disks are closed */
unsigned machine_cd_port(unsigned n);

void machine_tell_watcher(struct machine *m, enum machine_news what); /* machine_pause.c */

/* machine_disks.c */
void machine_disk_counts(struct machine *m, struct machine_stats *to);
struct machine_disk_arg {
	struct machine *m;
	unsigned index; /* of all disks */
	unsigned nth;   /* of those on its bus */
	const struct machine_disk *config;
};
WARN_UNUSED int machine_make_disk(struct virtio_device **out, const struct virtio_env *env,
				  const void *arg, struct err *e); /* arg: of the above */
/* For one that comes later: opened on its I/O thread, and then placed by the loop thread. */
WARN_UNUSED int machine_image_open(struct machine_image **out, struct machine *m, struct loop *l,
				   const struct machine_disk *c, struct err *e);
WARN_UNUSED int machine_image_place(struct machine_image *d, unsigned slot, struct err *e);
WARN_UNUSED int machine_image_device(struct virtio_device **out, const struct virtio_env *env,
				     struct machine_image *d, const struct machine_disk *c,
				     struct err *e);
/* For one that goes: said on the loop thread, closed on its I/O thread (flushed; errors go to the
 * log), and freed when that has ended. */
void machine_image_leaves(struct machine_image *d);
void machine_image_close(struct machine_image *d);
void machine_image_forget(struct machine_image *d);                             /* by the machine */
void machine_image_free(struct machine_image *d);                               /* accepts NULL */
struct machine_image *machine_image_in(const struct machine *m, unsigned slot); /* or NULL */
unsigned machine_image_slot(const struct machine_image *d);                     /* 0: an ATA disk */
void machine_image_tell(const struct machine_image *d, struct machine_part *to);
struct ahci_drive;
WARN_UNUSED int machine_make_ata_disk(struct ahci_drive *out, struct loop *l,
				      const struct machine_disk_arg *a, struct err *e);
/* After the devices, before their I/O loops; those threads have ended. */
void machine_close_disks(struct machine *m);

/* machine_shares.c */
WARN_UNUSED int machine_make_shares(struct machine *m, const struct machine_config *c,
				    struct err *e);
/* The n-th, which there is not yet. */
WARN_UNUSED int machine_add_share(struct machine *m, unsigned n, const struct machine_share *c,
				  struct err *e);

/* machine_small.c */
WARN_UNUSED int machine_make_small(struct machine *m, const struct machine_config *c,
				   struct err *e);
void machine_console_has_room(void *machine); /* any thread */

/* machine_engine.c: vCPUs parked or not yet started */
WARN_UNUSED int machine_make_engine(struct machine *m, struct err *e);
void machine_free_engine(struct machine *m);

/* machine_firmware.c */
WARN_UNUSED int machine_make_mem(struct machine *m, uint64_t bytes, struct err *e);
void machine_reset_firmware(struct machine *m);
void machine_free_firmware(struct machine *m);
struct byte_sink *machine_debug_sink(struct machine *m); /* NULL: nobody listens */
/* When all other devices are there. */
WARN_UNUSED int machine_make_firmware(struct machine *m, const struct machine_config *c,
				      struct err *e);
void machine_acpi_config(const struct machine *m, struct acpi_config *c);

/* machine_flash.c */
WARN_UNUSED int machine_flash_new(struct machine_flash **out, struct machine *m, const char *path,
				  bool keep, struct err *e);
void machine_flash_reset(struct machine_flash *f);
void machine_flash_free(struct machine_flash *f); /* accepts NULL */

/* machine_boot.c: fills guest RAM with ACPI tables and the kernel, or with firmware, and vCPU 0 with
 * the entry state. RAM is all zero before. */
WARN_UNUSED int machine_load_guest(struct machine *m, struct err *e);

/* machine_pause.c */
void machine_park_cpus(struct machine *m); /* returns with all parked */
void machine_run_cpus(struct machine *m);  /* all parked, and perhaps new: run, unless paused */
/* For something short during which no vCPU may be in a device; false: they stood still already, and
 * are to stay so. */
WARN_UNUSED bool machine_stand_still(struct machine *m);
void machine_go_on(struct machine *m);

/* machine_limits.c */
WARN_UNUSED int machine_limits_init(struct machine *m, const struct machine_config *c,
				    struct err *e);
WARN_UNUSED int machine_limits_start(struct machine *m, struct err *e); /* vCPU threads are there */
void machine_limits_stop(struct machine *m);                            /* before they are joined */
void machine_limits_free(struct machine *m);
uint64_t machine_vcpu_ns(struct machine *m, unsigned vcpu); /* its thread's processor time */

/* machine_overcommit.c */
void machine_overcommit_start(struct machine *m, enum overcommit_mode mode);
void machine_overcommit_stop(struct machine *m); /* accepts one that was not started */

/* machine_net.c: the wires are freed after their I/O threads ended, and before the cards */
WARN_UNUSED int machine_make_nets(struct machine *m, const struct machine_config *c, struct err *e);
void machine_free_wires(struct machine *m);

WARN_UNUSED int machine_add_net(struct machine *m, unsigned n, const struct machine_net *c,
				struct err *e);

/* machine_plug.c */
WARN_UNUSED int machine_plug_new(struct machine *m, struct err *e);
void machine_plug_free(struct machine *m); /* before the devices; no thread of theirs runs */
void machine_plug_fill(struct machine *m); /* what is there from the start */
/* The machine is being reset: true: what is in the slot is on its way out. */
bool machine_plug_reset(struct machine *m, unsigned slot);
bool machine_plug_leaves(const struct machine *m, unsigned slot); /* its I/O thread ends */

/* machine_run.c */
WARN_UNUSED int machine_life_init(struct machine *m, struct err *e);
void machine_life_done(struct machine *m);
void machine_restart(struct machine *m); /* loop thread: as if the guest had reset it */
void machine_look(struct machine *m);    /* the loop looks whether something happened */
