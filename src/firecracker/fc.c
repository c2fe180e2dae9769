#include "firecracker/fc_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"

/* --- documents --- */

int fc_read(const json_t *doc, const struct option *table, void *to, struct err *e)
{
	return doc ? options_from_json(table, to, (json_t *)doc, e) : 0;
}

json_t *fc_find(const json_t *array, const char *member, const char *id, size_t *at)
{
	json_t *one;
	size_t i;

	json_array_foreach(array, i, one)
	{
		const char *is = json_string_value(json_object_get(one, member));

		if (!is || strcmp(is, id) != 0)
			continue;
		if (at)
			*at = i;
		return one;
	}
	return NULL;
}

void fc_set(struct fc *f, enum fc_doc n, json_t *doc)
{
	json_decref(f->doc[n]);
	f->doc[n] = doc;
}

void fc_replace(struct fc *f, enum fc_doc list, size_t at, json_t *doc)
{
	AUTO_LOCK(&f->doc_lock);
	json_array_set_new(f->doc[list], at, doc);
}

/* --- when what can be asked --- */

static bool is_started(const struct fc *f)
{
	return atomic_load(&f->starting) || atomic_load(&f->control);
}

static const char *refuses(void *ctx, const struct api_method *m)
{
	const struct fc *f = ctx;

	if (!m->states || m->states & (is_started(f) ? FC_AFTER : FC_BEFORE))
		return NULL;
	return m->states & FC_BEFORE
		       ? "The requested operation is not supported after starting the microVM."
		       : "The requested operation is not supported before starting the microVM.";
}

/* --- its life --- */

static bool id_is_good(const char *id)
{
	size_t len = strlen(id);

	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)id[i]) && id[i] != '-')
			return false;
	return len >= 1 && len <= 64;
}

int fc_new(struct fc **out, const struct fc_opts *o, struct fc_host *h, struct err *e)
{
	size_t body_max = o->body_max ? o->body_max : FC_BODY_MAX;
	struct fc *f;
	int r;

	if (!id_is_good(o->id))
		return err_set(e, EINVAL,
			       "Invalid instance ID: 1 to 64 letters, digits and '-' are possible");
	f = calloc(1, sizeof *f);
	if (!f)
		return err_set(e, ENOMEM, "out of memory");
	strcpy(f->id, o->id);
	f->host = h;
	pthread_mutex_init(&f->doc_lock, NULL);
	f->serial.fd = f->metrics.fd = f->metrics.tick.fd = -1;
	f->table = (struct api_table){
		.title = "Firecracker's API, served by Holon",
		.description =
			"Version " FC_API_VERSION " of it; docs/firecracker.md says how far.",
		.method = fc_methods,
		.methods = fc_methods_count,
		.refuses = refuses,
		.ctx = f,
		.body_max = body_max,
		.error_member = "fault_message",
		.args_prefix = "An error occurred when deserializing the json body of a request",
		.all_400 = true,
		.null_is_absent = true,
	};
	f->doc[FC_DRIVES] = json_array();
	f->doc[FC_NETS] = json_array();
	r = mmds_new(&f->mmds, o->mmds_max ? o->mmds_max : body_max, e);
	if (r < 0)
		fc_free(f);
	else
		*out = f;
	return r;
}

void fc_free(struct fc *f)
{
	if (!f)
		return;
	fc_metrics_done(f);
	for (unsigned i = 0; i < FC_DOCS; i++)
		json_decref(f->doc[i]);
	mmds_free(f->mmds);
	if (f->serial.fd >= 0)
		close(f->serial.fd);
	pthread_mutex_destroy(&f->doc_lock);
	free(f->append);
	free(f);
}

const struct api_table *fc_table(const struct fc *f)
{
	return &f->table;
}

const char *fc_id(const struct fc *f)
{
	return f->id;
}

void fc_starting(struct fc *f, bool yes)
{
	atomic_store(&f->starting, yes);
}

int fc_attach(struct fc *f, struct control *c, struct machine *m, struct err *e)
{
	int r = fc_metrics_tick(f, m, e);

	if (r == 0)
		atomic_store(&f->control, c);
	return r;
}

void fc_detach(struct fc *f)
{
	atomic_store(&f->control, NULL);
	fc_metrics_stop(f);
}

/* --- files --- */

int fc_put(struct fc *f, const char *path, json_t *body, struct err *e)
{
	AUTO_FREE char *text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
	struct api_fds fds = {0};
	struct api_reply reply;
	const char *why;
	char query[1] = "";
	unsigned status;

	if (!text)
		return err_set(e, ENOMEM, "out of memory");
	status = api_dispatch(&f->table, RIGHT_OPERATE, "PUT", path, query, text, strlen(text),
			      &fds, &reply);
	if (status >= 300) {
		why = json_string_value(json_object_get(reply.json, f->table.error_member));
		err_set(e, EINVAL, "%s", why ? why : path);
	}
	json_decref(reply.json);
	return status < 300 ? 0 : -EINVAL;
}

/* Each of a list goes to "PATH/ID". */
static int put_all(struct fc *f, const char *path, const char *id_member, const json_t *list,
		   struct err *e)
{
	json_t *one;
	size_t i;
	int r = 0;

	if (!json_is_array(list))
		return err_set(e, EINVAL, "a list is expected");
	json_array_foreach(list, i, one)
	{
		const char *id = json_string_value(json_object_get(one, id_member));
		char full[200];

		if (!id)
			return err_set(e, EINVAL, "%s is missing", id_member);
		snprintf(full, sizeof full, "%s/%s", path, id);
		if ((r = fc_put(f, full, one, e)) < 0)
			return err_wrap(e, "%s", id);
	}
	return r;
}

/* In this order: what comes later may need what came before. */
static const struct section {
	const char *name, *path, *id_member;
} sections[] = {
	{"logger", "/logger", NULL},
	{"metrics", "/metrics", NULL},
	{"machine-config", "/machine-config", NULL},
	{"cpu-config", "/cpu-config", NULL},
	{"boot-source", "/boot-source", NULL},
	{"drives", "/drives", "drive_id"},
	{"network-interfaces", "/network-interfaces", "iface_id"},
	{"vsock", "/vsock", NULL},
	{"balloon", "/balloon", NULL},
	{"mmds-config", "/mmds/config", NULL},
	{"entropy", "/entropy", NULL},
	{"serial", "/serial", NULL},
	{"pmem", "/pmem", "id"},
	{"memory-hotplug", "/hotplug/memory", NULL},
};

static int put_section(struct fc *f, const struct section *s, json_t *value, struct err *e)
{
	int r = 0;

	if (json_is_null(value))
		return 0;
	if (s->id_member)
		r = put_all(f, s->path, s->id_member, value, e);
	else
		r = fc_put(f, s->path, value, e);
	return r < 0 ? err_wrap(e, "%s", s->name) : 0;
}

static int apply(struct fc *f, json_t *config, struct err *e)
{
	const char *name;
	json_t *value;
	int r = 0;

	if (!json_is_object(config))
		return err_set(e, EINVAL, "an object is expected");
	json_object_foreach(config, name, value)
	{
		unsigned i = 0;

		while (i < ARRAY_SIZE(sections) && strcmp(sections[i].name, name) != 0)
			i++;
		if (i == ARRAY_SIZE(sections))
			return err_set(e, EINVAL, "unknown member '%.64s'", name);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(sections) && r == 0; i++) {
		value = json_object_get(config, sections[i].name);
		if (value)
			r = put_section(f, &sections[i], value, e);
	}
	return r;
}

static json_t *load_json(const char *path, struct err *e)
{
	json_error_t why;
	json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &why);

	if (!j)
		err_set(e, EINVAL, "'%s': %s (line %d)", path, why.text, why.line);
	return j;
}

int fc_load_config(struct fc *f, const char *path, struct err *e)
{
	json_t *j = load_json(path, e);
	int r = j ? apply(f, j, e) : -EINVAL;

	if (j && r < 0)
		err_wrap(e, "'%s'", path);
	json_decref(j);
	return r;
}

int fc_load_metadata(struct fc *f, const char *path, struct err *e)
{
	json_t *j = load_json(path, e);
	int r = j ? mmds_put(f->mmds, j, e) : -EINVAL;

	json_decref(j);
	return r;
}
