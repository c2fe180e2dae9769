#include "machine/engine_choice.h"

#include <errno.h>
#include <stdio.h>

#include "cpu/engine.h"
#include "cpu/probe.h"

/* ENOTSUP: there is something to force. */
static int code_of(enum kvm_verdict verdict)
{
	return verdict == KVM_ABSENT ? ENODEV : verdict == KVM_DENIED ? EACCES : ENOTSUP;
}

int engine_decide(const struct engine **out, char reason[ENGINE_REASON_LEN],
		  enum engine_choice choice, bool force, const struct kvm_finding *finding,
		  struct err *e)
{
	bool usable;

	if (choice == ENGINE_JIT) {
		snprintf(reason, ENGINE_REASON_LEN, "as asked");
		*out = &engine_jit;
		return 0;
	}

	usable = finding->verdict == KVM_USABLE;
	if (choice == ENGINE_KVM && !usable && !force)
		return err_set(e, code_of(finding->verdict), "engine kvm: %s", finding->line);

	snprintf(reason, ENGINE_REASON_LEN, "%s%s",
		 usable                 ? ""
		 : choice == ENGINE_KVM ? "forced: "
					: "",
		 finding->line);
	*out = usable || choice == ENGINE_KVM ? &engine_kvm : &engine_jit;
	return 0;
}

int engine_choose(const struct engine **out, char reason[ENGINE_REASON_LEN],
		  enum engine_choice choice, bool force, struct err *e)
{
	struct kvm_finding finding = {0};

	if (choice != ENGINE_JIT)
		kvm_probe(&finding);
	return engine_decide(out, reason, choice, force, &finding, e);
}
