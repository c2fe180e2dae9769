/* docgen: a template on standard input to standard output, with the line "@MAN@" or "@BASH@"
 * replaced by what the command table says. Used by the build for docs/. */
#include <stdio.h>
#include <string.h>

#include "cli/help.h"

int main(void)
{
	char line[1024];

	while (fgets(line, sizeof line, stdin)) {
		if (!strcmp(line, "@MAN@\n"))
			help_man(stdout);
		else if (!strcmp(line, "@BASH@\n"))
			help_bash(stdout);
		else
			fputs(line, stdout);
	}
	return ferror(stdin) || fflush(stdout) == EOF;
}
