#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "block/nbd_priv.h"

#define LIBRARY "libnbd.so.0"

static const struct {
	const char *name;
	size_t offset;
} symbols[] = {
#define NBD_SYMBOL(name) {"nbd_" #name, offsetof(struct nbd_lib, name)},
	NBD_FUNCTIONS(NBD_SYMBOL)
#undef NBD_SYMBOL
};

int nbd_lib_open(struct nbd_lib *l, struct err *e)
{
	/* It stays loaded: it keeps data for each thread that called it, and frees that when the
	 * thread ends. */
	l->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!l->library)
		return err_set(e, ENOENT, "NBD needs libnbd (Debian package libnbd0): %s",
			       dlerror());
	for (unsigned i = 0; i < ARRAY_SIZE(symbols); i++) {
		void *f = dlsym(l->library, symbols[i].name);

		if (!f) {
			nbd_lib_close(l);
			return err_set(e, ENOENT, "%s has no %s", LIBRARY, symbols[i].name);
		}
		memcpy((char *)l + symbols[i].offset, &f, sizeof f);
	}
	return 0;
}

void nbd_lib_close(struct nbd_lib *l)
{
	if (l->library)
		dlclose(l->library);
	*l = (struct nbd_lib){0};
}
