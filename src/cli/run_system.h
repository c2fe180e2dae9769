/* run_system: what 'holon run WORD' needs beyond a machine: WORD is an image of the store, which
 * is built when it is "debian" and not there yet, a disk, or "oci:" and a container's image. Finds the VM's disk, makes the
 * seed, and finds the kernel on the disk at each start of the guest. */
#pragma once

#include "cli/cli.h"
#include "cli/run_oci.h"
#include "image/kernel.h"
#include "image/vm.h"
#include "machine/machine.h"

struct run_system {
	const struct run_opts *opts;
	const char *name; /* the VM's */
	struct store store;
	struct vm_place vm;
	const char *disk, *format; /* what the machine's first disk is; NULL: it was none */
	int seed;                  /* the cidata disk, read-only raw; -1: none */
	char seed_path[32];        /* by which it can be opened */
	char user[64];             /* who can log in; empty: who knows */
	char own_name[STORE_NAME_MAX + 1];
	bool oci; /* it runs a container's image */

	struct kernel_source source;
	struct guest_kernel kernel;
	struct run_oci container; /* in place of the above */
	char kernel_path[32], initrd_path[32];
	char append[2 * KERNEL_CMDLINE_MAX];
};

/* word[0], and behind that the command for a container's image. */
WARN_UNUSED int run_system_init(struct run_system *s, const struct run_opts *o, int words,
				char **word, struct err *e);
void run_system_done(struct run_system *s); /* accepts one that is all zero but seed, or failed */

/* Puts the system's disk before disk[0..*n), and its seed behind them. */
WARN_UNUSED int run_system_disks(const struct run_system *s,
				 struct machine_disk disk[MACHINE_DISKS_MAX], unsigned *n,
				 struct err *e);

/* Whether its disk has a kernel that starts without firmware; else why says what is missing. */
bool run_system_has_kernel(const struct run_system *s, struct err *why);
/* Bits of image/bootable.h, or a negative errno. */
WARN_UNUSED int run_system_bootable(const struct run_system *s, struct err *e);

/* What the options say about the seed, without the system: for 'holon run' to check early. */
WARN_UNUSED int run_system_check(const struct run_opts *o, bool has_word, struct err *e);
