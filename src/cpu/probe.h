/* probe: can this host run a VM on KVM, really? open("/dev/kvm") proves nothing: there
 * are hosts where it opens and guest kernel code is emulated or fails. The probe runs a
 * real guest of a few hundred instructions in ring 0 with paging: a page fault, syscall/sysret,
 * an interrupt, and a timed loop. It ends with the first finding that rules KVM out, and takes a
 * few milliseconds. Any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum kvm_verdict { KVM_USABLE, KVM_ABSENT, KVM_DENIED, KVM_BROKEN, KVM_SLOW };

struct kvm_finding {
	enum kvm_verdict verdict;
	char line[200];      /* one line for people: what was found, and why it is (not) taken */
	uint64_t insn_per_s; /* ring 0, measured; 0 when it never came so far */
	bool has_page_fault, has_interrupt, has_syscall; /* worked as the manual says */
	bool emulates_ring0; /* SYSCALL from ring 3 stays there: there is no ring 0 under it */
};

void kvm_probe(struct kvm_finding *f);
