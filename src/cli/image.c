/* holon image ls, info, rm: tables for people, JSON for programs. */
#include "cli/image.h"

#include <stdio.h>

static int trouble(const char *command, const struct err *e)
{
	fprintf(stderr, "holon image %s: %s\n", command, e->text);
	return EXIT_TROUBLE;
}

static const char *info_text(const struct store_image *i, const char *key)
{
	const char *text = json_string_value(json_object_get(i->info, key));

	return text ? text : "-";
}

/* --- JSON --- */

static json_t *to_json(const struct store *st, const struct store_image *i)
{
	char users[1024];
	json_t *j = json_deep_copy(i->info);

	store_users(st, i->digest, users, sizeof users);
	if (*i->name)
		json_object_set_new(j, "name", json_string(i->name));
	json_object_set_new(j, "digest", json_sprintf("sha256:%s", i->digest));
	json_object_set_new(j, "file", json_string(i->file));
	json_object_set_new(j, "file_bytes", json_integer((json_int_t)i->file_bytes));
	json_object_set_new(j, "used_by", json_string(users));
	return j;
}

static void print_json(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
}

/* --- ls --- */

struct listing {
	const struct store *st;
	json_t *array; /* NULL: lines are printed */
	unsigned count;
};

static bool list_one(void *ctx, const struct store_image *i)
{
	struct listing *l = ctx;
	char users[40];

	if (l->array) {
		json_t *j = to_json(l->st, i);

		json_object_del(j, "installed");
		json_array_append_new(l->array, j);
		return true;
	}
	if (!l->count++)
		printf("%-20s %-12s %-12s %8s  %-20s  %s\n", "NAME", "DIGEST", "SUITE", "MIB",
		       "CREATED", "USED BY");
	store_users(l->st, i->digest, users, sizeof users);
	printf("%-20s %-12.12s %-12s %8llu  %-20s  %s\n", *i->name ? i->name : "-", i->digest,
	       info_text(i, "suite"), (unsigned long long)(i->file_bytes >> 20),
	       info_text(i, "created"), *users ? users : "-");
	return true;
}

int cmd_image_ls(const void *opts, int words, char **word)
{
	const struct image_list_opts *o = opts;
	struct store st;
	struct listing l = {&st, o->json ? json_array() : NULL};
	struct err e = {0};
	int r = store_open(&st, NULL, &e);

	if (r == 0)
		r = store_list(&st, list_one, &l, &e);
	if (r < 0) {
		json_decref(l.array);
		return trouble("ls", &e);
	}
	if (l.array)
		print_json(l.array);
	else if (!l.count)
		puts("No images. 'holon image build debian' makes one, 'holon image pull' fetches one.");
	return EXIT_DONE;
}

/* --- info --- */

static void print_packages(const struct store_image *i)
{
	json_t *wanted = json_object_get(i->info, "packages"), *p;
	size_t n;

	printf("packages:  %zu installed", json_array_size(json_object_get(i->info, "installed")));
	json_array_foreach(wanted, n, p)
		printf("%s%s", n ? ", " : "; asked for: ", json_string_value(p));
	putchar('\n');
}

static void print_info(const struct store *st, const struct store_image *i)
{
	char users[1024];
	bool used = store_users(st, i->digest, users, sizeof users);
	json_int_t size = json_integer_value(json_object_get(i->info, "disk_size"));

	printf("name:      %s\n", *i->name ? i->name : "-");
	printf("digest:    sha256:%s\n", i->digest);
	if (json_object_get(i->info, "source")) {
		printf("source:    %s\n", info_text(i, "source"));
	} else {
		printf("system:    %s %s\n", info_text(i, "distribution"), info_text(i, "suite"));
		print_packages(i);
	}
	printf("disk:      %lld MiB, of which %llu MiB on the host\n", (long long)(size >> 20),
	       (unsigned long long)(i->file_bytes >> 20));
	printf("created:   %s by %s\n", info_text(i, "created"), info_text(i, "builder"));
	printf("used by:   %s\n", used ? users : "-");
	printf("file:      %s\n", i->file);
}

int cmd_image_info(const void *opts, int words, char **word)
{
	const struct image_list_opts *o = opts;
	struct store_image i;
	struct err e = {0};
	struct store st;

	if (store_open(&st, NULL, &e) < 0 || store_find(&st, word[0], &i, &e) < 0)
		return trouble("info", &e);
	if (o->json)
		print_json(to_json(&st, &i));
	else
		print_info(&st, &i);
	store_image_done(&i);
	return EXIT_DONE;
}

/* --- rm --- */

int cmd_image_rm(const void *opts, int words, char **word)
{
	const struct image_rm_opts *o = opts;
	int status = EXIT_DONE;
	struct err e = {0};
	struct store st;

	if (store_open(&st, NULL, &e) < 0)
		return trouble("rm", &e);
	for (int n = 0; n < words; n++)
		if (store_remove(&st, word[n], o->force, &e) < 0)
			status = trouble("rm", &e);
	return status;
}
