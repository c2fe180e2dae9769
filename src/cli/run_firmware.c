#include "cli/run_firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "cli/suboptions.h"
#include "image/bootable.h"

#define VARS_MAX MIB(4)

struct kind {
	const char *name, *package;
	struct {
		const char *code, *vars; /* where packages put them; vars: a template, or NULL */
	} files[3];
};

static const struct kind bios = {
	"bios",
	"seabios",
	{{"/usr/share/seabios/bios-256k.bin", NULL},
	 {"/usr/share/qemu/bios-256k.bin", NULL},
	 {"/usr/share/seabios/bios.bin", NULL}},
};
static const struct kind uefi = {
	"uefi",
	"ovmf",
	{{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
	 {"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
	 {"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"}},
};

/* iPXE for a virtio card (Debian's package ipxe-qemu). */
static const char *const net_roms[] = {"/usr/lib/ipxe/qemu/pxe-virtio.rom",
				       "/usr/share/qemu/pxe-virtio.rom"};

/* The BIOS of a plain VGA (the packages of the kinds above). */
static const char *const vga_roms[] = {"/usr/share/seabios/vgabios.bin",
				       "/usr/share/qemu/vgabios.bin"};

static bool readable(const char *path)
{
	return !path || access(path, R_OK) == 0;
}

static int find_files(const struct kind *k, const char **code, const char **vars, struct err *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(k->files); i++) {
		if (!readable(k->files[i].code) || !readable(k->files[i].vars))
			continue;
		*code = k->files[i].code;
		*vars = k->files[i].vars;
		return 0;
	}
	return err_set(e, ENOENT,
		       "firmware %s: there is no '%s'; on Debian: apt install %s (or name a file: "
		       "--firmware FILE)",
		       k->name, k->files[0].code, k->package);
}

/* --- variables --- */

static int copy(int from, int to)
{
	uint8_t buffer[16384];
	uint64_t all = 0;
	ssize_t n;

	while ((n = read(from, buffer, sizeof buffer)) > 0) {
		if ((all += (uint64_t)n) > VARS_MAX)
			return -EFBIG;
		if (write(to, buffer, (size_t)n) != n)
			return errno ? -errno : -ENOSPC;
	}
	return n < 0 ? -errno : 0;
}

/* By a rename, so that half a copy is never a VM's variables. */
static int make_vars(const char *path, const char *template, struct err *e)
{
	AUTO_CLOSE int from = open(template, O_RDONLY | O_CLOEXEC);
	char temporary[PATH_MAX / 2 + 16];
	AUTO_CLOSE int to = -1;
	int r;

	if (from < 0)
		return err_sys(e, errno, "open '%s'", template);
	snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
	to = mkostemp(temporary, O_CLOEXEC);
	if (to < 0)
		return err_sys(e, errno, "'%s'", temporary);
	r = copy(from, to);
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(temporary);
	return r < 0 ? err_sys(e, -r, "variables '%s'", path) : 0;
}

static int find_vars(struct run_firmware *f, const char *name, const char *template, struct err *e)
{
	struct store store;
	int r = store_open(&store, NULL, e);

	if (r < 0)
		return r;
	snprintf(f->vars, sizeof f->vars, "%s/efivars", store.root);
	if (mkdir(f->vars, 0700) < 0 && errno != EEXIST)
		return err_sys(e, errno, "'%s'", f->vars);
	snprintf(f->vars, sizeof f->vars, "%s/efivars/%s.fd", store.root, name);
	return access(f->vars, F_OK) == 0 ? 0 : make_vars(f->vars, template, e);
}

/* --- where it looks --- */

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

/* Without one, a BIOS does not know the network: an error only for those who want it first. */
static int find_net_rom(struct machine_firmware *f, struct err *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(net_roms) && !f->net_rom; i++)
		if (readable(net_roms[i]))
			f->net_rom = net_roms[i];
	if (f->net_rom || f->order[0] != BOOT_FROM_NET)
		return 0;
	return err_set(e, ENOENT,
		       "--boot net: a BIOS needs '%s' for that; on Debian: apt install ipxe-qemu",
		       net_roms[0]);
}

/* A BIOS cannot draw without the VGA's own; a UEFI does not draw on one. */
static int find_vga_rom(struct machine_firmware *f, bool required, struct err *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(vga_roms) && !f->vga_rom; i++)
		if (readable(vga_roms[i]))
			f->vga_rom = vga_roms[i];
	if (f->vga_rom || !required)
		return 0;
	return err_set(e, ENOENT,
		       "--vga on: a BIOS needs '%s' for that; on Debian: apt install seabios",
		       vga_roms[0]);
}

/* The screen is a BIOS's own way to show itself, the serial port the way for programs. */
static int choose_vga(const struct run_opts *o, struct machine_config *c, struct err *e)
{
	struct machine_firmware *f = &c->firmware;
	bool by_bios = f->code && !f->vars;
	int r = 0;

	c->vga = o->vga == VGA_ON ||
		 (o->vga == VGA_AUTO && !o->detach && by_bios && isatty(STDOUT_FILENO));
	if (c->vga && by_bios)
		r = find_vga_rom(f, o->vga == VGA_ON, e);
	if (by_bios && !f->vga_rom)
		c->vga = false;
	f->no_serial = c->vga && by_bios;
	return r;
}

static bool has_net(const struct machine_firmware *f)
{
	for (unsigned i = 0; i < f->orders; i++)
		if (f->order[i] == BOOT_FROM_NET)
			return true;
	return false;
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

/* A CD is there to be started from, unless a kernel is. */
static bool wanted(const struct run_opts *o)
{
	return asked_for(o) || (o->cdrom.n && !o->kernel);
}

/* What stands on the disk decides: nothing that can be started without, then. */
static bool needed(const struct run_opts *o, struct run_system *system)
{
	struct err why;

	if (wanted(o))
		return true;
	if (o->kernel || !system || run_system_has_kernel(system, &why))
		return false;
	log_info("%s: %s; starting its boot loader", system->name, why.text);
	return true;
}

/* The kind that starts what is on the disk; a BIOS where both can, as it is quicker. */
static const struct kind *by_disk(const struct run_system *system)
{
	int by = system ? run_system_bootable(system, NULL) : 0;

	return by == BOOTABLE_UEFI ? &uefi : &bios;
}

static int choose(struct run_firmware *f, const struct run_opts *o, const struct run_system *system,
		  const char **code, const char **template, struct err *e)
{
	struct {
		const char *vars;
	} parts = {0};
	static const struct option table[] = {{"vars", OPT_FILE, 0, "FILE", ""}, {0}};
	const char *word;
	int r;

	if (!o->firmware)
		return find_files(by_disk(system), code, template, e);
	r = suboptions_parse(table, o->firmware, &word, &parts, &f->storage, e);
	if (r < 0)
		return err_wrap(e, "--firmware");
	if (!strcmp(word, bios.name) || !strcmp(word, uefi.name)) {
		r = find_files(*word == 'b' ? &bios : &uefi, code, template, e);
	} else {
		*code = word;
	}
	if (parts.vars)
		*template = parts.vars;
	return r;
}

static int firmware_config(struct run_firmware *f, const struct run_opts *o,
			   struct run_system *system, const char *name, struct machine_config *c,
			   struct err *e)
{
	struct machine_firmware *m = &c->firmware;
	const char *template = NULL;
	int r = o->boot ? boot_order(o->boot, m, e) : 0;

	if (o->cdrom.n > MACHINE_CDS_MAX)
		return err_set(e, EINVAL, "--cdrom: %u CDs are the most", MACHINE_CDS_MAX);
	for (; c->cdroms < o->cdrom.n; c->cdroms++)
		c->cdrom[c->cdroms] = o->cdrom.value[c->cdroms];
	if (r < 0 || !needed(o, system))
		return r;
	default_order(m);
	c->kernel_source = NULL;
	m->debug = log_enabled(LOG_DEBUG);
	r = choose(f, o, system, &m->code, &template, e);
	if (r == 0 && !template && has_net(m))
		r = find_net_rom(m, e);
	if (r < 0 || !template)
		return r;
	m->vars = template;
	m->keep_vars = !o->ephemeral;
	if (o->ephemeral)
		return 0;
	r = find_vars(f, name, template, e);
	m->vars = f->vars;
	return r;
}

int run_firmware_config(struct run_firmware *f, const struct run_opts *o, struct run_system *system,
			const char *name, struct machine_config *c, struct err *e)
{
	int r = firmware_config(f, o, system, name, c, e);

	return r < 0 ? r : choose_vga(o, c, e);
}

void run_firmware_done(struct run_firmware *f)
{
	free(f->storage);
	f->storage = NULL;
}

int run_firmware_check(const struct run_opts *o, struct err *e)
{
	if (asked_for(o) && o->kernel)
		return err_set(e, EINVAL,
			       "--firmware and --boot go without --kernel: firmware starts "
			       "what is on a disk");
	return 0;
}
