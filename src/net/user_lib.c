#include "net/user_priv.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#define LIBRARY "libslirp.so.0"

struct symbol {
	const char *name;
	size_t offset;
};

static const struct symbol symbols[] = {
	{"slirp_new", offsetof(struct slirp_lib, new)},
	{"slirp_cleanup", offsetof(struct slirp_lib, cleanup)},
	{"slirp_pollfds_fill", offsetof(struct slirp_lib, fill)},
	{"slirp_pollfds_poll", offsetof(struct slirp_lib, poll)},
	{"slirp_input", offsetof(struct slirp_lib, input)},
	{"slirp_add_hostfwd", offsetof(struct slirp_lib, add_hostfwd)},
};

int slirp_lib_open(struct slirp_lib *l, struct err *e)
{
	void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (!handle)
		return err_set(e, ENOENT,
			       "user-mode network needs libslirp (Debian package libslirp0): %s",
			       dlerror());
	l->handle = handle;
	for (unsigned i = 0; i < ARRAY_SIZE(symbols); i++) {
		void *f = dlsym(handle, symbols[i].name);

		if (!f) {
			slirp_lib_close(l);
			return err_set(e, ENOENT, "%s has no %s", LIBRARY, symbols[i].name);
		}
		memcpy((char *)l + symbols[i].offset, &f, sizeof f);
	}
	return 0;
}

void slirp_lib_close(struct slirp_lib *l)
{
	if (l->handle)
		dlclose(l->handle);
	*l = (struct slirp_lib){0};
}
