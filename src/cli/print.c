#include "cli/print.h"

#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"

char *size_text(char to[SIZE_TEXT_LEN], uint64_t bytes)
{
	static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
	double n = (double)bytes;
	unsigned unit = 0;

	/* From 1000 on three digits do not hold it. */
	for (; n >= 999.5 && unit + 1 < ARRAY_SIZE(units); unit++)
		n /= 1024;
	snprintf(to, SIZE_TEXT_LEN, "%.3g %sB", n, units[unit]);
	return to;
}

int print_json(json_t *j)
{
	int r = j ? json_dumpf(j, stdout, JSON_INDENT(2)) : -1;

	json_decref(j);
	if (r < 0 || puts("") < 0) {
		fprintf(stderr, "holon: writing JSON failed\n");
		return EXIT_TROUBLE;
	}
	return EXIT_DONE;
}
