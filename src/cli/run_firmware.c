#include "cli/run_firmware.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "image/bootable.h"

struct kind {
	const char *name, *package;
	const char *code[3]; /* where packages put it */
};

static const struct kind bios = {
	"bios",
	"seabios",
	{"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin",
	 "/usr/share/seabios/bios.bin"},
};

static int find_file(const struct kind *k, const char **code, struct err *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(k->code); i++) {
		if (!k->code[i] || access(k->code[i], R_OK) < 0)
			continue;
		*code = k->code[i];
		return 0;
	}
	return err_set(
		e, ENOENT,
		"--firmware %s: there is no '%s'; on Debian: apt install %s (or name a file: "
		"--firmware FILE)",
		k->name, k->code[0], k->package);
}

/* --boot order=disk,cdrom,net[,menu], the order being part of the list itself. */
static int boot_order(const char *text, struct machine_firmware *f, struct err *e)
{
	/* In the order of enum machine_boot_from. */
	static const char *const from[BOOT_FROM_KINDS] = {"disk", "cdrom", "net"};

	if (!strncmp(text, "order=", 6))
		text += 6;
	while (*text) {
		size_t len = strcspn(text, ",");
		unsigned i = 0;

		while (i < ARRAY_SIZE(from) &&
		       (strlen(from[i]) != len || strncmp(from[i], text, len)))
			i++;
		if (len == 4 && !strncmp(text, "menu", len))
			f->menu = true;
		else if (i == ARRAY_SIZE(from))
			return err_set(e, EINVAL,
				       "--boot: '%.*s': a list of disk, cdrom, net and menu "
				       "is expected",
				       (int)len, text);
		else if (f->orders == BOOT_FROM_KINDS)
			return err_set(e, EINVAL, "--boot: more than %d places", BOOT_FROM_KINDS);
		else
			f->order[f->orders++] = (enum machine_boot_from)i;
		text += len + (text[len] == ',');
	}
	return 0;
}

static void default_order(struct machine_firmware *f)
{
	for (unsigned i = 0; f->orders == 0 && i < BOOT_FROM_KINDS; i++)
		f->order[i] = (enum machine_boot_from)i;
	if (f->orders == 0)
		f->orders = BOOT_FROM_KINDS;
}

static bool asked_for(const struct run_opts *o)
{
	return o->firmware || o->boot;
}

/* What stands on the disk decides: nothing that can be started without, then. */
static bool needed(const struct run_opts *o, struct run_system *system)
{
	struct err why;

	if (asked_for(o))
		return true;
	if (o->kernel || run_system_has_kernel(system, &why))
		return false;
	log_info("%s: %s; starting its boot loader", system->name, why.text);
	return true;
}

int run_firmware_config(const struct run_opts *o, struct run_system *system,
			struct machine_config *c, struct err *e)
{
	struct machine_firmware *f = &c->firmware;
	int r = o->boot ? boot_order(o->boot, f, e) : 0;

	if (r < 0 || !needed(o, system))
		return r;
	default_order(f);
	c->kernel_source = NULL;
	f->debug = log_enabled(LOG_DEBUG);
	if (o->firmware && strcmp(o->firmware, bios.name) != 0) {
		f->code = o->firmware;
		return 0;
	}
	return find_file(&bios, &f->code, e);
}

int run_firmware_check(const struct run_opts *o, bool has_word, struct err *e)
{
	if (asked_for(o) && o->kernel)
		return err_set(e, EINVAL,
			       "--firmware and --boot go without --kernel: firmware starts "
			       "what is on a disk");
	return 0;
}
