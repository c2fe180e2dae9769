/* print: small things that several commands print. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct json_t;

/* "1.25 MiB", as qemu-img has it. Returns to. */
#define SIZE_TEXT_LEN 24
char *size_text(char to[SIZE_TEXT_LEN], uint64_t bytes);
/* To standard output; consumes j (NULL: it could not be made). Returns the exit status. */
int print_json(struct json_t *j);
