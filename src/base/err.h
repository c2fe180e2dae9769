/* err: why something failed, in words its user can act on. It sits on the
 * caller's stack and never allocates, so it still works when memory is gone. */
#pragma once

struct err {
	int code;       /* positive errno */
	char text[256]; /* "outer: inner", outermost context first */
};

/* Records the cause. Returns -code, so a failing line is also the return. e may
 * be NULL: the cause is dropped, the return is the same. */
__attribute__((format(printf, 3, 4))) int err_set(struct err *e, int code, const char *fmt, ...);

/* The same for a failed system call or library function: the text ends in what code means
 * ("open 'x': No such file or directory"). */
__attribute__((format(printf, 3, 4))) int err_sys(struct err *e, int code, const char *fmt, ...);

/* Puts context in front of a cause recorded below. Returns the same -code. */
__attribute__((format(printf, 2, 3))) int err_wrap(struct err *e, const char *fmt, ...);
