#include "resource/limits.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cap_parse(const char *text, unsigned *cap, struct err *e)
{
	unsigned long whole;
	unsigned tenth = 0;
	char *end;

	if (!strcmp(text, "off")) {
		*cap = 0;
		return 0;
	}
	end = (char *)text;
	whole = isdigit((unsigned char)*text) ? strtoul(text, &end, 10) : ULONG_MAX;
	if (whole <= CAP_MAX && *end == '.' && isdigit((unsigned char)end[1])) {
		tenth = (unsigned)(end[1] - '0');
		end += 2;
	}
	if (whole > CAP_MAX / 10 || (whole < 1) || strcmp(end, "%") != 0)
		return err_set(e, EINVAL,
			       "'%.40s' is no share of a core (write 50%%, 250%% for two and a "
			       "half, or off)",
			       text);
	*cap = (unsigned)whole * 10 + tenth;
	return 0;
}

char *cap_text(char to[CAP_TEXT_LEN], unsigned cap)
{
	if (!cap)
		snprintf(to, CAP_TEXT_LEN, "off");
	else if (cap % 10)
		snprintf(to, CAP_TEXT_LEN, "%u.%u%%", cap / 10 % 1000000, cap % 10);
	else
		snprintf(to, CAP_TEXT_LEN, "%u%%", cap / 10 % 1000000);
	return to;
}

/* Returns where the number ends; NULL: there is none that can be a processor. */
static const char *cpu_number(const char *text, unsigned *to)
{
	char *end;
	unsigned long n;

	if (!isdigit((unsigned char)*text))
		return NULL;
	n = strtoul(text, &end, 10);
	if (n >= CPU_SETSIZE)
		return NULL;
	*to = (unsigned)n;
	return end;
}

int cpus_parse(const char *text, cpu_set_t *to, struct err *e)
{
	const char *at = text;
	unsigned first, last;

	CPU_ZERO(to);
	do {
		at = cpu_number(at, &first);
		last = first;
		if (at && *at == '-')
			at = cpu_number(at + 1, &last);
		if (!at || last < first || (*at && *at != ','))
			return err_set(
				e, EINVAL,
				"'%.80s' is no list of processors (write 0-3,7; there are %u "
				"at most)",
				text, CPU_SETSIZE);
		for (unsigned i = first; i <= last; i++)
			CPU_SET(i, to);
	} while (*at++);
	return 0;
}

int cpu_pin_parse(const char *text, struct cpu_pin *to, struct err *e)
{
	const char *equals = strchr(text, '=');
	char *end;

	to->vcpu = PIN_ALL;
	if (!equals)
		return cpus_parse(text, &to->cpus, e);
	if (strncmp(text, "vcpu", 4) != 0 || !isdigit((unsigned char)text[4]))
		return err_set(e, EINVAL, "'%.80s': write 0-3, or of one vCPU vcpu1=2", text);
	to->vcpu = (unsigned)min_u64(strtoul(text + 4, &end, 10), PIN_ALL - 1);
	if (end != equals)
		return err_set(e, EINVAL, "'%.80s': write 0-3, or of one vCPU vcpu1=2", text);
	return cpus_parse(equals + 1, &to->cpus, e);
}
