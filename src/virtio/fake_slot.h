/* fake_slot: a PCI slot with a virtio device in it, and memory, for tests: a guest's accesses go
 * through the bus, as from a vCPU. The device's loop runs on the calling thread, when asked to,
 * unless the test gives it a thread. */
#pragma once

#include "chipset/test_board.h"
#include "virtio/fake_driver.h"
#include "virtio/pci.h"

#define FAKE_SLOT_RAM  MIB(4)
#define FAKE_SLOT_BAR  0xc0000000u /* BAR 0 */
#define FAKE_SLOT_MSIX 0xc0100000u /* BAR 1 */

/* Offsets in BAR 0, as the capabilities say */
#define FAKE_COMMON 0x0000u
#define FAKE_ISR    0x1000u
#define FAKE_CONFIG 0x2000u
#define FAKE_NOTIFY 0x3000u

struct fake_slot {
	struct test_board board;
	struct guest_mem *mem;
	struct loop *loop; /* the I/O loop */
	struct device *host;
	struct virtio_pci *v;
	unsigned devfn;
	uint32_t bar;
	gpa_t rings;
	struct fake_driver q[VIRTIO_QUEUES_MAX];
};

/* Ready for fake_slot_add: env is what the device is to be made with. */
void fake_slot_init(struct fake_slot *s, struct loop *loop, struct virtio_env *env);
/* Takes d into slot 00:01, with BARs placed and decoding. */
void fake_slot_add(struct fake_slot *s, struct virtio_device *d);
/* Or a slot of a machine that is there already, number n of the test's: its BARs (those of number
 * 0 are as above) and rings get places of their own. Nothing to be taken down. */
void fake_slot_of(struct fake_slot *s, struct bus *bus, struct guest_mem *mem, struct virtio_pci *v,
		  unsigned devfn, unsigned n);
/* Pauses the device and runs the loop until it has stopped. */
void fake_slot_pause(struct fake_slot *s);
/* Pauses it and takes all down. */
void fake_slot_done(struct fake_slot *s); /* not the loop */

/* Runs the loop until it has nothing to do just now. */
void fake_loop_settle(struct loop *l);

uint32_t fake_in(struct fake_slot *s, unsigned offset, unsigned size);
void fake_out(struct fake_slot *s, unsigned offset, uint32_t v, unsigned size);
uint32_t fake_pci_in(struct fake_slot *s, unsigned reg, unsigned size);
void fake_pci_out(struct fake_slot *s, unsigned reg, uint32_t v, unsigned size);

/* The steps of a driver (3.1.1): up to FEATURES_OK, true if the device agrees; every queue of
 * size entries (0: largest); DRIVER_OK. */
bool fake_slot_agree(struct fake_slot *s, uint64_t features);
void fake_slot_queues(struct fake_slot *s, uint16_t size);
void fake_slot_go(struct fake_slot *s, uint64_t features, uint16_t size); /* all of it */
void fake_slot_kick(struct fake_slot *s, unsigned n);
/* Messages of the vectors 0 ... vectors - 1 arrive, as interrupts 0x40 and so on. */
void fake_slot_msix(struct fake_slot *s, unsigned vectors);
