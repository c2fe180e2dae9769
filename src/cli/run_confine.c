#include "cli/run_confine.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/runtime_dir.h"
#include "confine/confine.h"

#define SOCKETS_MAX (MACHINE_PORTS_MAX + 2)

struct needs {
	struct confine_profile profile;
	int r;
	struct err *e;
};

static void need(struct needs *n, const char *path, enum confine_access access)
{
	if (n->r == 0)
		n->r = confine_allow(&n->profile, path, access, n->e);
}

static void need_directory_of(struct needs *n, const char *path, enum confine_access access)
{
	char directory[PATH_MAX];
	const char *slash = strrchr(path, '/');

	snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) + 1 : 1,
		 slash ? path : ".");
	need(n, directory, access);
}

/* A file, or a server's URI (docs/block.md). */
static void need_disk(void *ctx, const char *file)
{
	struct needs *n = ctx;
	const char *socket;

	if (strncmp(file, "nbd", 3) != 0 || !strstr(file, "://")) {
		need(n, file, CONFINE_READ);
		return;
	}
	socket = strstr(file, "socket=");
	n->profile.disk_servers = true;
	if (socket)
		need_directory_of(n, socket + strlen("socket="), CONFINE_CONNECT);
	else
		n->profile.network = true;
}

/* Programs that manage name servers replace the file, in a directory of theirs if they have one. */
static void need_names(struct needs *n)
{
	static const char *const files[] = {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf",
					    "/etc/host.conf", "/etc/gai.conf"};
	AUTO_FREE char *servers = realpath(files[0], NULL);

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		need(n, files[i], CONFINE_READ);
	if (servers && strncmp(servers, "/run/", 5) == 0)
		need_directory_of(n, servers, CONFINE_READ);
}

static void need_switch(struct needs *n, const char *name)
{
	char runtime[512], path[600];

	if (n->r == 0 && (n->r = runtime_dir(runtime, sizeof runtime, n->e)) == 0) {
		snprintf(path, sizeof path, "%s/switch-%s", runtime, name);
		need(n, path, CONFINE_MANAGE);
	}
}

static void need_nets(struct needs *n, const struct machine_config *c)
{
	for (unsigned i = 0; i < c->nets; i++) {
		const struct net_opts *o = &c->net[i].net;

		if (o->kind == NET_USER || o->kind == NET_SWITCH) /* whose uplink we may become */
			n->profile.network = true;
		if (o->kind == NET_SWITCH)
			need_switch(n, o->name);
		need(n, o->tftp, CONFINE_READ);
	}
	if (n->profile.network)
		need_names(n);
}

/* What is read again when the guest resets. */
static void need_start(struct needs *n, const struct machine_config *c)
{
	/* A multiboot kernel's modules are named with their arguments, in one text. */
	AUTO_FREE char *modules = c->initrd ? strdup(c->initrd) : NULL;
	char *save = NULL;

	need(n, c->kernel, CONFINE_READ);
	need(n, c->initrd, CONFINE_READ);
	for (char *file = modules ? strtok_r(modules, ",", &save) : NULL; file;
	     file = strtok_r(NULL, ",", &save)) {
		file[strcspn(file, " ")] = 0;
		need(n, file, CONFINE_READ);
	}
	need(n, c->firmware.code, CONFINE_READ);
	need(n, c->firmware.net_rom, CONFINE_READ);
	need(n, c->firmware.vga_rom, CONFINE_READ);
	need(n, "/dev/kvm", CONFINE_WRITE);
	need(n, "/proc/sys/vm/max_map_count", CONFINE_READ);
	need(n, getenv("HOLON_PERF_MAP"), CONFINE_WRITE);
}

/* Those that the VM listens at, which are removed at the end. */
static unsigned sockets_of(const struct machine_config *c, const char *socket[SOCKETS_MAX])
{
	unsigned n = 0;

	if (c->vsock)
		socket[n++] = c->vsock;
	if (c->gdb && strncmp(c->gdb, "tcp:", 4) != 0)
		socket[n++] = c->gdb;
	for (unsigned i = 0; i < c->ports; i++)
		socket[n++] = c->port[i].path;
	return n;
}

static void need_all(struct needs *n, struct machine *m, const struct machine_config *c)
{
	need_start(n, c);
	machine_each_disk_file(m, need_disk, n);
	need_nets(n, c);
	for (unsigned i = 0; i < c->shares; i++) {
		const struct machine_share *s = &c->share[i];

		need(n, s->dir, s->read_only ? CONFINE_READ : CONFINE_TREE);
	}
	n->profile.acts_for_others = c->shares && geteuid() == 0;
	if (c->vsock) /* the guest connects to those beside it */
		need_directory_of(n, c->vsock, CONFINE_CONNECT);
}

int run_confine(enum confine_choice how, struct machine *m, const struct machine_config *config,
		struct control *c, struct err *e)
{
	struct needs n = {.profile = {.violation_fd = -1}, .e = e};
	const char *socket[SOCKETS_MAX];
	struct confine_state state;

	if (how == CONFINE_OFF)
		return 0;
	need_all(&n, m, config);
	if (n.r == 0 && c)
		n.r = control_confine(c, &n.profile, socket, sockets_of(config, socket), e);
	if (n.r == 0)
		n.r = confine_enter(&n.profile, how == CONFINE_STRICT, &state, e);
	if (n.r == 0 && c)
		n.r = control_confined(c, &state, e);
	if (n.r == 0 && *state.missing)
		log_warn("%s: not confined by %s; see holon doctor", config->name, state.missing);
	confine_profile_done(&n.profile);
	return n.r;
}
