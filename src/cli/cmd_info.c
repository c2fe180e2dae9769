/* The commands that only tell: doctor, version, help. */
#include "cli/cli.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine/confine.h"
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

static void confine_child(int to)
{
	struct confine_profile p = {.violation_fd = -1};
	struct confine_state s;
	struct err err;

	if (confine_enter(&p, false, &s, &err) < 0)
		snprintf(s.missing, sizeof s.missing, "%.250s", err.text);
	(void)!write(to, s.missing, strlen(s.missing));
	_exit(0);
}

/* A process is confined as a VM's is, and says what did not come about. */
static void look_at_confinement(struct host_fact *f)
{
	ssize_t n = -1;
	int fd[2], status = -1;
	pid_t pid;

	*f = (struct host_fact){.name = "confinement"};
	if (pipe(fd) < 0)
		return;
	pid = fork();
	if (pid == 0)
		confine_child(fd[1]);
	close(fd[1]);
	if (pid > 0) {
		n = read(fd[0], f->detail, sizeof f->detail - 1);
		waitpid(pid, &status, 0);
	}
	close(fd[0]);
	f->found = n == 0 && status == 0;
	if (f->found)
		snprintf(f->detail, sizeof f->detail,
			 "whole: privileges, namespaces, Landlock, system calls");
	else if (status != 0)
		snprintf(f->detail, sizeof f->detail, "the process that tried it did not end well");
	if (!f->found)
		snprintf(f->advice, sizeof f->advice,
			 "VMs run without that part; 'holon run --confine strict' refuses to");
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
	n = host_facts(fact, HOST_FACTS_MAX - 1);
	look_at_confinement(&fact[n++]);
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
