/* seed: what cloud-init in a guest is told at its first boot, as a small disk of its NoCloud
 * datasource (labelled "cidata"): user-data, meta-data. No network-config: without one,
 * cloud-init asks for an address by DHCP. */
#pragma once

#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

struct seed_opts {
	const char *instance_id; /* the same for the same VM: cloud-init runs once for each */
	const char *hostname;    /* NULL: "holon" */
	/* NULL: none of these. user: may use sudo without a password. */
	const char *user;
	const char *ssh_keys; /* lines as in authorized_keys, for user */
	const char *password; /* NULL: none, and the serial console logs user in by itself */
	/* Given: passed on as it is, and user, ssh_keys and password must be NULL. */
	const void *user_data;
	uint32_t user_data_len;
};

/* A user or host name that Linux and cloud-init take; the error says what is wrong. */
WARN_UNUSED int seed_check(const struct seed_opts *o, struct err *e);

/* The user-data that cloud-init would get; malloc'ed text. */
WARN_UNUSED int seed_user_data(const struct seed_opts *o, char **text, struct err *e);

/* The disk, in a file without a name, which the caller closes. */
WARN_UNUSED int seed_make(const struct seed_opts *o, int *fd, struct err *e);
