#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/print.h"

#define NS_PER_SEC    1000000000ull
#define FIRST_NS      (NS_PER_SEC / 5) /* what is done by then shows nothing */
#define BAR_NS        (NS_PER_SEC / 10)
#define LINE_NS       NS_PER_SEC
#define BAR_MAX       50u
#define BAR_MIN       10u
#define DEFAULT_WIDTH 80u

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* "0:03", "1:02:03" */
static void time_text(char *to, size_t room, double seconds)
{
	unsigned long s = seconds < 360000 ? (unsigned long)(seconds + 0.5) : 359999;

	if (s >= 3600)
		snprintf(to, room, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
	else
		snprintf(to, room, "%lu:%02lu", s / 60, s % 60);
}

static void bar_text(char *to, unsigned width, double share)
{
	unsigned filled = (unsigned)(share * (width - 2));

	to[0] = '[';
	memset(to + 1, ' ', width - 2);
	memset(to + 1, '=', filled);
	if (filled < width - 2)
		to[1 + filled] = '>';
	to[width - 1] = ']';
	to[width] = 0;
}

size_t progress_text(char *to, size_t room, unsigned width, uint64_t done, uint64_t total,
		     uint64_t elapsed_ns)
{
	double share = total ? (double)done / (double)total : 1;
	double seconds = (double)elapsed_ns / NS_PER_SEC;
	double rate = seconds > 0 ? (double)done / seconds : 0;
	char a[SIZE_TEXT_LEN], b[SIZE_TEXT_LEN], c[SIZE_TEXT_LEN], left[24] = "-";
	char text[160], bar[BAR_MAX + 2] = "";
	unsigned len;

	if (rate > 0)
		time_text(left, sizeof left, (double)(total - done) / rate);
	len = (unsigned)snprintf(text, sizeof text, "%3u%%  %s of %s, %s/s, %s left",
				 (unsigned)(share * 100), size_text(a, done), size_text(b, total),
				 size_text(c, (uint64_t)rate), left);
	if (width > len + 2 + BAR_MIN) {
		unsigned n = width - len - 2;

		bar_text(bar, n < BAR_MAX ? n : BAR_MAX, share);
	}
	return (size_t)snprintf(to, room, "%s%s%s", bar, *bar ? " " : "", text);
}

static unsigned terminal_width(void)
{
	struct winsize w;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : DEFAULT_WIDTH;
}

void progress_begin(struct progress *p, bool asked)
{
	bool quiet = !log_enabled(LOG_WARN);
	bool terminal = isatty(STDERR_FILENO) == 1;

	*p = (struct progress){
		.bar = terminal && !quiet,
		.lines = asked && !terminal && !quiet,
		.start_ns = now_ns(),
	};
}

/* Over what stands there, which may be longer. */
static void draw(struct progress *p, uint64_t done, uint64_t total, uint64_t elapsed_ns)
{
	unsigned columns = terminal_width() - 1;
	char text[256];
	size_t len = progress_text(text, sizeof text, columns, done, total, elapsed_ns);

	if (len > columns) /* a line that wraps could not be drawn over */
		text[len = columns] = 0;
	fprintf(stderr, "\r%s%*s", text, len < p->width ? (int)(p->width - len) : 0, "");
	p->width = (unsigned)len;
}

static void show(struct progress *p, uint64_t done, uint64_t total, uint64_t now)
{
	char text[256];

	p->shown_ns = now;
	if (p->bar) {
		draw(p, done, total, now - p->start_ns);
		return;
	}
	progress_text(text, sizeof text, 0, done, total, now - p->start_ns);
	fprintf(stderr, "%s\n", text);
}

void progress_step(struct progress *p, uint64_t done, uint64_t total)
{
	uint64_t now, due;

	if (!p->bar && !p->lines)
		return;
	now = now_ns();
	due = !p->shown_ns ? p->start_ns + FIRST_NS : p->shown_ns + (p->bar ? BAR_NS : LINE_NS);
	if (now >= due)
		show(p, done, total, now);
}

void progress_end(struct progress *p, uint64_t done, uint64_t total)
{
	if (p->bar && p->width)
		fprintf(stderr, "\r%*s\r", (int)p->width, "");
	else if (p->lines)
		show(p, done, total, now_ns());
	p->bar = p->lines = false;
}
