/* plug: what is plugged in and out while the guest runs, as ACPI has it (ACPI 6.5, 5.6.4 and 6.3):
 * PCI functions of some slots. dsdt.asl's methods read these registers when an
 * interrupt says that there is news, and tell the guest's drivers; a driver that has let go of a
 * device has _EJ0 written here.
 *
 *   0  slots that have something new           a written 1 clears
 *   4  slots that shall be let go of           likewise
 *   8  slots that are let go of                write only
 *
 * A slot is taken by exactly one of those who want to: the guest that lets go of
 * it, or the machine, that pulls it out. All functions: any thread. */
#pragma once

#include "chipset/device.h"

/* The guest has let go of something: it is taken, the owner's to take away. vCPU's thread, no lock
 * held; all that the guest must find gone is gone when it returns. */
struct plug_owner {
	void (*slot_left)(struct plug_owner *o, unsigned slot);
};
void plug_set_owner(struct device *plug, struct plug_owner *o); /* before vCPUs run */

/* Something is in the slot: tell the guest, or not (it looks there itself when it starts). */
void plug_slot_fill(struct device *plug, unsigned slot, bool tell);
/* Ask the guest to let go of it; false: nothing is there. */
bool plug_slot_ask(struct device *plug, unsigned slot);
/* False: nothing is there, or somebody else took it. */
WARN_UNUSED bool plug_slot_take(struct device *plug, unsigned slot);
/* What was taken was pulled out: the guest shall let go of what is not there any more. Until it has it
 * would take what comes into the slot for the same. */
void plug_slot_pulled(struct device *plug, unsigned slot);
bool plug_slot_mourned(struct device *plug, unsigned slot);
