#include "cli/vm_define.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/print.h"
#include "cli/vm.h"
#include "image/store.h"

#define AFTER_DEPTH_MAX 16u

#define PATH_LEN (PATH_MAX / 2)

struct definition {
	json_t *json;         /* owned */
	struct run_opts opts; /* texts lie in json */
	const char *image, *directory;
	json_t *after; /* array, or NULL; json's */
	json_t *rest;  /* json without what is not an option; owned */
};

/* --- places --- */

static int define_dir(char to[PATH_LEN], struct err *e)
{
	struct store store;
	int r = store_open(&store, NULL, e);

	if (r < 0)
		return r;
	if (snprintf(to, PATH_LEN, "%s/definitions", store.root) >= (int)PATH_LEN)
		return err_set(e, ENAMETOOLONG, "'%s'", store.root);
	return mkdir(to, 0700) < 0 && errno != EEXIST ? err_sys(e, errno, "make '%s'", to) : 0;
}

static int define_path(char to[PATH_LEN + VM_NAME_MAX + 8], const char *name, struct err *e)
{
	char dir[PATH_LEN];
	int r = vm_check_name(name, e);

	if (r < 0 || (r = define_dir(dir, e)) < 0)
		return r;
	snprintf(to, PATH_LEN + VM_NAME_MAX + 8, "%s/%s.json", dir, name);
	return 0;
}

int define_remove(const char *name, struct err *e)
{
	char path[PATH_LEN + VM_NAME_MAX + 8];
	int r = define_path(path, name, e);

	if (r < 0)
		return r;
	return unlink(path) < 0 ? err_sys(e, errno, "definition '%s'", name) : 0;
}

static int is_definition(const struct dirent *d)
{
	size_t len = strlen(d->d_name);

	return d->d_name[0] != '.' && len > 5 && !strcmp(d->d_name + len - 5, ".json");
}

int define_list(void (*each)(void *ctx, const char *name), void *ctx, struct err *e)
{
	struct dirent **found;
	char dir[PATH_LEN];
	int r = define_dir(dir, e), n;

	if (r < 0)
		return r;
	n = scandir(dir, &found, is_definition, alphasort);
	if (n < 0)
		return err_sys(e, errno, "read '%s'", dir);
	for (int i = 0; i < n; i++) {
		found[i]->d_name[strlen(found[i]->d_name) - 5] = 0;
		if (vm_check_name(found[i]->d_name, NULL) == 0)
			each(ctx, found[i]->d_name);
		free(found[i]);
	}
	free(found);
	return 0;
}

/* --- reading --- */

static void definition_done(struct definition *d)
{
	json_decref(d->json);
	json_decref(d->rest);
	*d = (struct definition){0};
}

static int take_text(struct definition *d, const char *member, const char **to, struct err *e)
{
	json_t *v = json_object_get(d->json, member);

	if (v && !json_is_string(v))
		return err_set(e, EINVAL, "%s: a text is expected", member);
	*to = json_string_value(v);
	json_object_del(d->rest, member);
	return 0;
}

static int take_after(struct definition *d, struct err *e)
{
	json_t *name;
	size_t i;
	int r = 0;

	d->after = json_object_get(d->json, "after");
	json_object_del(d->rest, "after");
	if (d->after && !json_is_array(d->after))
		return err_set(e, EINVAL, "after: an array of names is expected");
	json_array_foreach(d->after, i, name)
	{
		r = json_is_string(name) ? vm_check_name(json_string_value(name), e)
					 : err_set(e, EINVAL, "after: names are expected");
		if (r < 0)
			return r;
	}
	return 0;
}

/* Takes d->json apart and checks all that can be checked without starting it. */
static int check_definition(struct definition *d, struct err *e)
{
	char *word[1];
	int r;

	if (!json_is_object(d->json))
		return err_set(e, EINVAL, "an object is expected");
	d->rest = json_copy(d->json);
	if (!d->rest)
		return err_set(e, ENOMEM, "out of memory");
	json_object_del(d->rest, "$schema");
	if ((r = take_text(d, "image", &d->image, e)) < 0 ||
	    (r = take_text(d, "directory", &d->directory, e)) < 0 || (r = take_after(d, e)) < 0)
		return r;
	memcpy(&d->opts, run_command.defaults, sizeof d->opts);
	if ((r = options_from_json(run_command.option, &d->opts, d->rest, e)) < 0)
		return r;
	if (!d->opts.name)
		return err_set(e, EINVAL, "name is missing");
	if ((r = vm_check_name(d->opts.name, e)) < 0)
		return r;
	d->opts.detach = true;
	word[0] = (char *)d->image;
	return run_command.check(&d->opts, d->image != NULL, word, e);
}

static int load(struct definition *d, const char *path, struct err *e)
{
	json_error_t why;
	int r;

	*d = (struct definition){0};
	d->json = !strcmp(path, "-") ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &why)
				     : json_load_file(path, JSON_REJECT_DUPLICATES, &why);
	if (!d->json && why.line < 0)
		return err_set(e, ENOENT, "%s", why.text);
	if (!d->json)
		return err_set(e, EINVAL, "'%s', line %d: %s", path, why.line, why.text);
	r = check_definition(d, e);
	if (r < 0) {
		definition_done(d);
		return err_wrap(e, "'%s'", path);
	}
	return 0;
}

json_t *define_after(const char *name)
{
	char path[PATH_LEN + VM_NAME_MAX + 8];
	json_t *all = define_path(path, name, NULL) == 0 ? json_load_file(path, 0, NULL) : NULL;
	json_t *after = json_incref(json_object_get(all, "after"));

	json_decref(all);
	return after;
}

/* --- create --- */

static json_t *schema(void)
{
	json_t *s = options_schema(run_command.option), *members = json_object_get(s, "properties");

	json_object_del(members, "detach");
	json_object_set_new(members, "image",
			    json_pack("{s:s, s:s}", "type", "string", "description",
				      "An image of the store (debian), or a disk with a system."));
	json_object_set_new(members, "directory",
			    json_pack("{s:s, s:s}", "type", "string", "description",
				      "Where paths begin that do not begin with a slash."));
	json_object_set_new(members, "after",
			    json_pack("{s:s, s:{s:s}, s:s}", "type", "array", "items", "type",
				      "string", "description", "VMs that are started first."));
	json_object_set_new(members, "$schema", json_pack("{s:s}", "type", "string"));
	json_array_append_new(json_object_get(s, "required"), json_string("name"));
	json_object_set_new(s, "$schema",
			    json_string("https://json-schema.org/draft/2020-12/schema"));
	json_object_set_new(s, "title", json_string("A VM, for holon create"));
	return s;
}

static int keep(const struct definition *d, struct err *e)
{
	char path[PATH_LEN + VM_NAME_MAX + 8], temp[sizeof path + 4];
	AUTO_FREE char *here = getcwd(NULL, 0);
	int r = define_path(path, d->opts.name, e);

	if (r < 0)
		return r;
	if (!d->directory && here)
		json_object_set_new(d->json, "directory", json_string(here));
	snprintf(temp, sizeof temp, "%s.new", path);
	if (json_dump_file(d->json, temp, JSON_INDENT(2)) < 0 || rename(temp, path) < 0)
		return err_sys(e, errno, "write '%s'", path);
	return 0;
}

int cmd_create(const void *opts, int words, char **word)
{
	const struct create_opts *o = opts;
	struct definition d;
	struct err err = {0};
	int r;

	if (o->schema)
		return print_json(schema());
	r = load(&d, o->file, &err);
	if (r == 0) {
		r = keep(&d, &err);
		if (r == 0)
			puts(d.opts.name);
		definition_done(&d);
	}
	if (r < 0) {
		fprintf(stderr, "holon create: %s\n", err.text);
		return EXIT_TROUBLE;
	}
	return EXIT_DONE;
}

/* --- start --- */

static bool runs(const char *name)
{
	struct vm_seen v;
	bool yes = vm_find(&v, name, NULL) == 0 && (v.life == VM_RUNS || v.waits);

	vm_seen_done(&v);
	return yes;
}

static int start(const char *name, bool foreground, unsigned depth);

static int start_those_before(const struct definition *d, unsigned depth)
{
	json_t *name;
	size_t i;

	json_array_foreach(d->after, i, name)
	{
		int status = runs(json_string_value(name))
				     ? EXIT_DONE
				     : start(json_string_value(name), false, depth + 1);

		if (status != EXIT_DONE)
			return status;
	}
	return EXIT_DONE;
}

static int start(const char *name, bool foreground, unsigned depth)
{
	char path[PATH_LEN + VM_NAME_MAX + 8];
	struct definition d;
	struct err err = {0};
	char *word[1];
	int r = define_path(path, name, &err), status;

	if (r == 0 && depth > AFTER_DEPTH_MAX)
		r = err_set(&err, ELOOP, "'after' goes round in a circle");
	if (r == 0 && access(path, F_OK) < 0)
		r = err_set(&err, ENOENT, "there is no definition of it; 'holon create' makes one");
	if (r < 0 || load(&d, path, &err) < 0)
		return vm_trouble(name, &err);
	status = start_those_before(&d, depth);
	if (status == EXIT_DONE && d.directory && chdir(d.directory) < 0) {
		err_sys(&err, errno, "directory '%s'", d.directory);
		status = vm_trouble(name, &err);
	}
	if (status == EXIT_DONE) {
		word[0] = (char *)d.image;
		d.opts.detach = !foreground;
		if (foreground)
			d.opts.restart = 0; /* that is its parent's business */
		status = cmd_run(&d.opts, d.image != NULL, word);
	}
	definition_done(&d);
	return status;
}

int cmd_start(const void *opts, int words, char **word)
{
	const struct start_opts *o = opts;
	AUTO_FREE bool *ran = calloc((size_t)words, sizeof *ran);
	int status = EXIT_DONE;

	for (int i = 0; ran && i < words; i++)
		ran[i] = runs(word[i]);
	for (int i = 0; i < words; i++) {
		bool before_another = ran && !ran[i] && runs(word[i]);
		int s = before_another ? EXIT_DONE : start(word[i], o->foreground, 0);

		status = s != EXIT_DONE ? s : status;
	}
	return status;
}

struct each {
	void (*each)(void *ctx, const char *name);
	void *ctx;
};

static void if_it_does_not_run(void *ctx, const char *name)
{
	const struct each *to = ctx;

	if (!runs(name))
		to->each(to->ctx, name);
}

static int each_to_start(void (*each)(void *ctx, const char *name), void *ctx, struct err *e)
{
	return define_list(if_it_does_not_run, &(struct each){each, ctx}, e);
}

/* --- the table --- */

static const struct option create_options[] = {
	{"file", OPT_FILE, offsetof(struct create_opts, file), "FILE",
	 "The definition, JSON; -: standard input.", .letter = 'f'},
	{"schema", OPT_FLAG, offsetof(struct create_opts, schema), NULL,
	 "Print the JSON schema of definitions."},
	{0}};
static const struct create_opts create_defaults = {0};

static int check_create(const void *opts, int words, char **word, struct err *e)
{
	const struct create_opts *o = opts;

	return o->file || o->schema ? 0 : err_set(e, EINVAL, "--file FILE is missing");
}

const struct command create_command = {
	.name = "create",
	.summary = "Keep the definition of a VM, to be started by its name",
	.text = "A definition is a JSON object: name, image (what 'holon run' is given as a word),\n"
		"and the options of 'holon run' by their names:\n"
		"  {\"name\": \"web\", \"image\": \"debian\", \"memory\": \"1G\", \"publish\": [\"8080:80\"]}\n"
		"One of the same name is replaced. 'holon rm' removes it.\n",
	.option = create_options,
	.defaults = &create_defaults,
	.opts_size = sizeof create_defaults,
	.check = check_create,
	.run = cmd_create,
};

static const struct option start_options[] = {
	{"foreground", OPT_FLAG, offsetof(struct start_opts, foreground), NULL,
	 "Run on this terminal, as systemd wants it. One VM only."},
	{0}};
static const struct start_opts start_defaults = {0};

static int check_start(const void *opts, int words, char **word, struct err *e)
{
	const struct start_opts *o = opts;

	return o->foreground && words > 1 ? err_set(e, EINVAL, "--foreground: one VM") : 0;
}

const struct command start_command = {
	.name = "start",
	.summary = "Start VMs that were defined by 'holon create', in the background",
	.text = "Those that a definition names in 'after' are started before it.\n",
	.words = "NAME...",
	.min_words = 1,
	.max_words = WORDS_MANY,
	.complete = WORDS_VMS,
	.every = each_to_start,
	.option = start_options,
	.defaults = &start_defaults,
	.opts_size = sizeof start_defaults,
	.check = check_start,
	.run = cmd_start,
};
