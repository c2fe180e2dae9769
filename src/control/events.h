/* events: what happened to a VM, as JSON texts with a number each, the last EVENTS_MAX of them.
 * Any thread. */
#pragma once

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"

#define EVENTS_MAX 256u

struct events {
	pthread_mutex_t lock;
	uint64_t next; /* the number of the next one; the first is 1 */
	char *text[EVENTS_MAX];
};

void events_init(struct events *v);
void events_done(struct events *v);
/* more: further members, an object, or NULL; taken over. */
void events_add(struct events *v, const char *vm, const char *event, json_t *more);
/* The oldest with a number of at least *number as a line in to[]; *number moves behind it. Returns
 * its length; 0: there is none, or no room for it. */
size_t events_read(struct events *v, uint64_t *number, char *to, size_t max);
