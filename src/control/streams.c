/* Answers that come bit by bit. They end when the VM has ended and all was told. */
#include "control/control_priv.h"

#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

struct stream {
	struct api_stream stream;
	struct control *c;
	uint64_t at;
	bool follow, told;
};

static bool is_over(struct control *c)
{
	AUTO_LOCK(&c->lock);
	return c->state == CONTROL_OVER;
}

static void stream_free(struct api_stream *s)
{
	free(container_of(s, struct stream, stream));
}

static struct api_stream *new_stream(struct control *c, uint64_t at, bool follow,
				     long (*more)(struct api_stream *s, char *to, size_t max))
{
	struct stream *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	*s = (struct stream){{more, stream_free}, c, at, follow, false};
	return &s->stream;
}

/* Looked at before what there is: what came before the end must not be missed. */
static long nothing(const struct stream *s, bool was_over)
{
	return s->follow && !was_over ? 0 : -1;
}

/* --- console --- */

static long more_console(struct api_stream *stream, char *to, size_t max)
{
	struct stream *s = container_of(stream, struct stream, stream);
	bool over = is_over(s->c);
	uint32_t n = console_log_read(&s->c->log, &s->at, to, (uint32_t)max);

	return n ? (long)n : nothing(s, over);
}

struct api_stream *control_console_stream(struct control *c, uint64_t from, bool follow)
{
	/* For good: who has followed once will again, and a wake-up for nothing costs little. */
	if (follow)
		atomic_store(&c->console_followed, true);
	return new_stream(c, from, follow, more_console);
}

/* --- events --- */

static long more_events(struct api_stream *stream, char *to, size_t max)
{
	struct stream *s = container_of(stream, struct stream, stream);
	bool over = is_over(s->c);
	size_t len = 0, n;

	while ((n = events_read(&s->c->events, &s->at, to + len, max - len)) > 0)
		len += n;
	return len ? (long)len : nothing(s, over);
}

struct api_stream *control_events_stream(struct control *c, uint64_t from, bool follow)
{
	return new_stream(c, from, follow, more_events);
}

/* --- the end --- */

static long more_end(struct api_stream *stream, char *to, size_t max)
{
	struct stream *s = container_of(stream, struct stream, stream);
	AUTO_FREE char *text = NULL;
	json_t *info, *ended;
	size_t len;

	if (s->told)
		return -1;
	if (!is_over(s->c))
		return 0;
	info = control_info(s->c);
	ended = json_object_get(info, "ended");
	text = ended ? json_dumps(ended, JSON_COMPACT) : NULL;
	json_decref(info);
	if (!text)
		return -1;
	len = min_u64(strlen(text), max);
	memcpy(to, text, len);
	s->told = true;
	return (long)len;
}

struct api_stream *control_wait_stream(struct control *c)
{
	return new_stream(c, 0, true, more_end);
}
