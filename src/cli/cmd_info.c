/* The commands that only tell: doctor, version, help. */
#include "cli/cli.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/help.h"
#include "cli/print.h"
#include "cpu/engine.h"
#include "cpu/host.h"
#include "machine/engine_choice.h"

int cmd_version(const void *opts, int words, char **word)
{
	const struct json_opts *o = opts;

	if (o->json)
		return print_json(json_pack("{s:s, s:[s, s]}", "version", HOLON_VERSION, "engines",
					    engine_kvm.name, engine_jit.name));
	printf("holon %s\n", HOLON_VERSION);
	return EXIT_DONE;
}

int cmd_help(const void *opts, int words, char **word)
{
	int used;
	const struct command *c = find_command(words, word, &used);

	if (c && used < words) {
		fprintf(stderr, "holon help: '%s' has no commands\n", c->name);
		return EXIT_TROUBLE;
	}
	if (c)
		help_text(c, stdout);
	return c ? EXIT_DONE : EXIT_TROUBLE;
}

static int doctor_json(const char *engine, const char *reason, const struct host_fact *fact, int n)
{
	json_t *facts = json_array();

	for (int i = 0; i < n; i++) {
		json_t *j = json_pack("{s:s, s:b, s:s, s:s}", "name", fact[i].name, "found",
				      fact[i].found, "detail", fact[i].detail, "advice",
				      fact[i].advice);

		if (json_array_append_new(facts, j) < 0) {
			json_decref(facts);
			return print_json(NULL);
		}
	}
	return print_json(json_pack("{s:{s:s, s:s}, s:o}", "engine", "name", engine, "reason",
				    reason, "facts", facts));
}

int cmd_doctor(const void *opts, int words, char **word)
{
	const struct json_opts *o = opts;
	struct host_fact fact[HOST_FACTS_MAX];
	const struct engine *engine;
	char reason[ENGINE_REASON_LEN];
	struct err err;
	int n;

	if (engine_choose(&engine, reason, ENGINE_AUTO, false, &err) < 0) {
		fprintf(stderr, "holon doctor: %s\n", err.text);
		return EXIT_TROUBLE;
	}
	n = host_facts(fact, HOST_FACTS_MAX);
	if (o->json)
		return doctor_json(engine->name, reason, fact, n);

	printf("engine: %s (%s)\n\n", engine->name, reason);
	for (int i = 0; i < n; i++) {
		printf("%-7s %-16s %s\n", fact[i].found ? "found" : "missing", fact[i].name,
		       fact[i].detail);
		if (fact[i].advice[0])
			printf("%-24s -> %s\n", "", fact[i].advice);
	}
	return EXIT_DONE;
}
