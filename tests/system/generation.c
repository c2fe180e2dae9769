/* generation KERNEL INITRD: runs a machine, and each time the guest prints "new-generation" it is
 * told that it is another one now (machine_new_generation), as a clone would be. What the guest
 * prints goes to standard output. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/loop.h"
#include "machine/machine.h"

#define WORD "new-generation\r\n"

static struct renewer {
	struct byte_sink sink;
	struct loop_call call;
	struct machine *m;
	unsigned matched; /* bytes of WORD */
} the;

static void renew(struct loop_call *c)
{
	struct err e;

	if (machine_new_generation(the.m, &e) < 0)
		fprintf(stderr, "generation: %s\n", e.text);
}

static void put(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
	if (write(1, bytes, len) < 0)
		_exit(1);
	for (uint32_t i = 0; i < len; i++) {
		the.matched = bytes[i] == (uint8_t)WORD[the.matched] ? the.matched + 1 : 0;
		if (the.matched < strlen(WORD))
			continue;
		the.matched = 0;
		loop_post(machine_loop(the.m), &the.call);
	}
}

int main(int argc, char **argv)
{
	struct machine_config c = {
		.name = "generation",
		.engine = ENGINE_JIT,
		.cpus = 1,
		.memory_bytes = MIB(512),
		.append = "console=ttyS0 printk.devkmsg=on",
		.serial_out = &the.sink,
	};
	struct machine_result result;
	struct err e;
	int r;

	if (argc != 3)
		return 2;
	c.kernel = argv[1];
	c.initrd = argv[2];
	the.sink.put = put;
	the.call.run = renew;
	r = machine_new(&the.m, &c, &e);
	if (r == 0)
		r = machine_run(the.m, &result, &e);
	if (r < 0)
		fprintf(stderr, "generation: %s\n", e.text);
	machine_free(the.m);
	return r < 0 || result.end != END_POWER_OFF;
}
