/* mmds: the metadata service: a JSON document that the host sets and the guest reads by HTTP
 * (docs/firecracker.md). Version 2 wants a token with each request, which the guest gets for a
 * while by a PUT.
 *
 * Any thread: the document is the host's, requests come on the I/O threads of network cards. A
 * parser of foreign bytes: the guest's requests. */
#pragma once

#include <jansson.h>

#include "base/bits.h"
#include "base/err.h"
#include "net/net.h"

struct mmds;

#define MMDS_PORT       80
#define MMDS_TTL_MAX    21600u /* seconds */
#define MMDS_TOKENS_MAX 256u   /* the one that ends first goes when there are more */

struct mmds_counts {
	uint64_t requests, refused, no_token, bad_token;
};

WARN_UNUSED int mmds_new(struct mmds **out, size_t max_bytes, struct err *e);
void mmds_free(struct mmds *m); /* accepts NULL */
void mmds_configure(struct mmds *m, bool v2, bool imds_compat);
bool mmds_is_v2(struct mmds *m);

/* A copy of doc. */
WARN_UNUSED int mmds_put(struct mmds *m, json_t *doc, struct err *e);
/* By RFC 7396. */
WARN_UNUSED int mmds_patch(struct mmds *m, const json_t *change, struct err *e);
json_t *mmds_get(struct mmds *m); /* a copy */
void mmds_get_counts(struct mmds *m, struct mmds_counts *to);

/* For the guest's side of a card; the address is left to the caller. */
void mmds_service(struct mmds *m, struct net_service *s);
