/* oddity: what a KVM does that no processor does, where the probe has found that it runs no
 * guest kernel (struct kvm_finding, emulates_ring0). Each is excused only when one instruction,
 * tried before, has shown it on this host; and only as exactly the end that it predicts. All
 * else that differs there is a failure as on any host. */
#pragma once

#include "batch.h"
#include "forms.h"

enum oddity {
	ODD_FAULT_UD,  /* #GP in ring 3 goes to KVM's emulator and, unknown there, becomes #UD */
	ODD_EMULATED,  /* ring 3 is emulated: 32-bit code, or 64-bit code with a wild RSP */
	ODD_MONITOR,   /* MONITOR and MWAIT in ring 3: #GP, not #UD */
	ODD_SERIALIZE, /* 0F 01 E8 does nothing where the processor has #UD */
	ODD_NT,        /* a trap from ring 3 loses NT */
	ODD_ALIGN,     /* where ring 3 is emulated there are no alignment checks */
	ODDITIES
};

struct oddities {
	bool seen[ODDITIES];
	unsigned excused[ODDITIES];
};

/* Tries each on the engine behind guest. */
WARN_UNUSED int oddity_look(struct oddities *o, struct batch_runner *guest,
			    const struct user_image *image, bool compat, struct err *e);

/* Whether an oddity of this host explains that got is not want; counts it. Both normalized. */
bool oddity_excuses(struct oddities *o, const struct user_case *c, const struct forms *fs,
		    const struct user_image *image, const struct user_end *want,
		    const struct user_end *got);

/* Streams of instructions that would be emulated in part end in no predictable way. */
bool oddity_bars_stream(const struct oddities *o, const struct user_case *c);

void oddity_print(const struct oddities *o);
