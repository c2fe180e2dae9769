#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
	if (e) {
		va_list ap;

		e->code = code;
		va_start(ap, fmt);
		vsnprintf(e->text, sizeof e->text, fmt, ap);
		va_end(ap);
	}
	return -code;
}

int err_sys(struct err *e, int code, const char *fmt, ...)
{
	if (e) {
		va_list ap;
		size_t n;

		e->code = code;
		va_start(ap, fmt);
		vsnprintf(e->text, sizeof e->text, fmt, ap);
		va_end(ap);
		n = strlen(e->text);
		snprintf(e->text + n, sizeof e->text - n, ": %s", strerrordesc_np(code));
	}
	return -code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char inner[sizeof e->text];
	va_list ap;
	size_t n;

	if (!e)
		return -1;
	memcpy(inner, e->text, sizeof inner);
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof e->text, fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	snprintf(e->text + n, sizeof e->text - n, ": %s", inner);
	return -e->code;
}
