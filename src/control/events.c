#include "control/events.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/auto.h"

void events_init(struct events *v)
{
	*v = (struct events){.next = 1};
	pthread_mutex_init(&v->lock, NULL);
}

void events_done(struct events *v)
{
	for (unsigned i = 0; i < EVENTS_MAX; i++)
		free(v->text[i]);
	pthread_mutex_destroy(&v->lock);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + (double)(t.tv_nsec / 1000000) / 1000;
}

void events_add(struct events *v, const char *vm, const char *event, json_t *more)
{
	json_t *j;
	char **at;

	AUTO_LOCK(&v->lock);
	j = json_pack("{s:I, s:f, s:s, s:s}", "number", (json_int_t)v->next, "time", now(), "vm",
		      vm, "event", event);
	if (more)
		json_object_update(j, more);
	json_decref(more);
	at = &v->text[v->next % EVENTS_MAX];
	free(*at);
	*at = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(13)) : NULL;
	v->next++;
	json_decref(j);
}

size_t events_read(struct events *v, uint64_t *number, char *to, size_t max)
{
	const char *text = NULL;
	size_t len;

	AUTO_LOCK(&v->lock);
	if (v->next > EVENTS_MAX)
		*number = max_u64(*number, v->next - EVENTS_MAX);
	*number = max_u64(*number, 1);
	while (*number < v->next && !(text = v->text[*number % EVENTS_MAX]))
		++*number;
	len = text ? strlen(text) + 1 : 0;
	if (!text || len > max)
		return 0;
	memcpy(to, text, len - 1);
	to[len - 1] = '\n';
	++*number;
	return len;
}
