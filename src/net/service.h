/* service: a server inside a card's wire: frames from the guest to one IPv4 address are taken off the
 * wire, whatever backend it leads to, and what comes to its TCP port is handed to a function that
 * answers requests. Enough of ARP (RFC 826), IPv4 (RFC 791) and TCP (RFC 9293) for one who only
 * answers, on a wire that loses nothing but when the guest has no room: no options but the
 * segment size, no reassembly, what comes out of order is asked for again.
 *
 * The guest is hostile: so many connections (the one that was quiet for longest goes when one more
 * comes), so many bytes of a request, and each connection ends when nothing comes of it for
 * SERVICE_QUIET_S. All on the I/O thread. */
#pragma once

#include "net/backend.h"

#define SERVICE_CONNS   16u
#define SERVICE_IN_MAX  KIB(10)
#define SERVICE_QUIET_S 30u

/* s is copied. */
WARN_UNUSED int service_new(struct net_filter **out, const struct net_service *s, struct loop *l,
			    struct err *e);
