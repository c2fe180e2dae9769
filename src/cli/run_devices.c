#include "cli/run_devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/suboptions.h"

/* --vsock PATH[,cid=N] */
static int vsock(struct run_devices *d, const char *text, struct machine_config *c, struct err *e)
{
	struct {
		unsigned cid;
	} o = {0};
	static const struct option table[] = {{"cid", OPT_COUNT, 0, "N", ""}, {0}};
	int r = suboptions_parse(table, text, &c->vsock, &o, &d->storage[d->n], e);

	if (r < 0)
		return err_wrap(e, "--vsock");
	d->n++;
	c->vsock_cid = o.cid;
	return 0;
}

/* --port NAME=unix:PATH */
static int port(struct run_devices *d, const char *text, struct machine_config *c, struct err *e)
{
	static const char kind[] = "unix:";
	struct machine_port_config *p = &c->port[c->ports];
	char *copy, *where;

	if (c->ports == MACHINE_PORTS_MAX)
		return err_set(e, EINVAL, "--port: at most %d are possible", MACHINE_PORTS_MAX);
	copy = strdup(text);
	if (!copy)
		return err_set(e, ENOMEM, "--port");
	d->storage[d->n++] = copy;
	where = strchr(copy, '=');
	if (!where || strncmp(where + 1, kind, sizeof kind - 1))
		return err_set(e, EINVAL, "--port '%s': NAME=unix:PATH is expected", text);
	*where = 0;
	p->name = copy;
	p->path = where + sizeof kind;
	c->ports++;
	return 0;
}

/* --share DIR:TAG[:ro][,KEY=VALUE]... */
struct share_words {
	bool ro;
	int cache;
	const char *owner;
};

const struct option share_parts[] = {
	{"ro", OPT_FLAG, offsetof(struct share_words, ro), NULL,
	 "The guest may only read; the same as :ro."},
	{"cache", OPT_CHOICE, offsetof(struct share_words, cache), "auto|writeback",
	 "writeback: the guest keeps written data for a while, which makes small writes quick; the host "
	 "sees them late, and must not change files meanwhile. Default: auto."},
	{"owner", OPT_TEXT, offsetof(struct share_words, owner), "UID[:GID]",
	 "Whose your files are in the guest, unless Holon runs as root, when ids are the same in guest "
	 "and host. Default: 0:0."},
	{0}};

static bool parse_owner(const char *text, struct machine_share *s)
{
	char *end;

	s->uid = s->gid = (unsigned)strtoul(text, &end, 10);
	if (*end == ':' && end[1])
		s->gid = (unsigned)strtoul(end + 1, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end;
}

/* DIR:TAG[:ro], from the right: DIR may have colons. */
static bool parse_place(char *text, struct machine_share *s)
{
	char *colon = strrchr(text, ':');

	if (colon && !strcmp(colon, ":ro")) {
		s->read_only = true;
		*colon = 0;
		colon = strrchr(text, ':');
	}
	if (!colon || colon == text || !colon[1])
		return false;
	*colon = 0;
	s->dir = text;
	s->tag = colon + 1;
	return true;
}

static int share(struct run_devices *d, const char *text, struct machine_config *c, struct err *e)
{
	struct machine_share *s = &c->share[c->shares];
	struct share_words o = {0};
	const char *place;
	int r;

	if (c->shares == MACHINE_SHARES_MAX)
		return err_set(e, EINVAL, "--share: at most %u are possible", MACHINE_SHARES_MAX);
	r = suboptions_parse(share_parts, text, &place, &o, &d->storage[d->n], e);
	if (r < 0)
		return err_wrap(e, "--share %s", text);
	d->n++;
	*s = (struct machine_share){.fd = -1, .read_only = o.ro, .writeback = o.cache};
	if (!parse_place((char *)place, s))
		return err_set(e, EINVAL, "--share '%s': DIR:TAG or DIR:TAG:ro is expected", text);
	if (o.owner && !parse_owner(o.owner, s))
		return err_set(e, EINVAL, "--share %s: owner: UID or UID:GID is expected", text);
	c->shares++;
	return 0;
}

/* --balloon auto, idle, off, or the memory that the guest is to keep */
static int balloon(const char *text, struct machine_config *c, struct err *e)
{
	uint64_t keep;
	int r;

	c->overcommit = OVERCOMMIT_OFF;
	c->no_balloon = !strcmp(text, "off");
	if (c->no_balloon)
		return 0;
	if (!strcmp(text, "auto") || !strcmp(text, "idle")) {
		c->overcommit = *text == 'a' ? OVERCOMMIT_PRESSURE : OVERCOMMIT_IDLE;
		return 0;
	}
	r = size_parse(text, &keep, e);
	if (r < 0)
		return err_wrap(e, "--balloon (auto, idle, off, or a size)");
	if (keep > c->memory_bytes)
		return err_set(e, EINVAL, "--balloon %s: the guest has less memory than that",
			       text);
	c->balloon_bytes = c->memory_bytes - keep;
	return 0;
}

/* --gdb WHERE[,arch=i386] */
static int gdb(struct run_devices *d, const char *text, struct machine_config *c, struct err *e)
{
	struct {
		int arch;
	} o = {0};
	static const struct option table[] = {{"arch", OPT_CHOICE, 0, "x86-64|i386", ""}, {0}};
	int r = suboptions_parse(table, text, &c->gdb, &o, &d->storage[d->n], e);

	if (r < 0)
		return err_wrap(e, "--gdb");
	d->n++;
	c->gdb_i386 = o.arch;
	return 0;
}

int run_devices_config(struct run_devices *d, const struct run_opts *o, struct machine_config *c,
		       struct err *e)
{
	int r = 0;

	*d = (struct run_devices){0};
	c->console_virtio = o->console;
	c->gdb_wait = o->gdb_wait;
	if (o->vsock)
		r = vsock(d, o->vsock, c, e);
	for (unsigned i = 0; i < o->port.n && r == 0; i++)
		r = port(d, o->port.value[i], c, e);
	for (unsigned i = 0; i < o->share.n && r == 0; i++)
		r = share(d, o->share.value[i], c, e);
	if (r == 0 && o->gdb)
		r = gdb(d, o->gdb, c, e);
	c->overcommit = OVERCOMMIT_PRESSURE;
	if (r == 0 && o->balloon)
		r = balloon(o->balloon, c, e);
	return r;
}

void run_devices_done(struct run_devices *d)
{
	while (d->n)
		free(d->storage[--d->n]);
}
