/* fake_devices: a device of every type there is, each with a backend that a test can have
 * anywhere. Who writes a device adds it to fake_makers; the state test (state_test.c) and the
 * fuzz target (tests/fuzz/virtio_fuzz.c) walk that list. */
#pragma once

#include "virtio/virtio.h"

struct fake_maker {
	const char *name;
	/* aux: what clean gets, after the device was freed. Aborts when it cannot. */
	struct virtio_device *(*make)(const struct virtio_env *env, void **aux);
	void (*clean)(void *aux);  /* NULL: nothing to do */
	int (*connect)(void *aux); /* a program's socket to its backend, or -1; NULL: it has none */
	bool tells;  /* its driver is told of a loading, so that a copy is not the same */
	bool echoes; /* its backend keeps bytes for it, which a copy does not have */
};

extern const struct fake_maker fake_makers[]; /* ended by one without a name */
