/* crc32: the checksum of Ethernet and zlib (polynomial 0xedb88320, reflected). */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Start with crc 0; feed what it returned to continue over more bytes. */
uint32_t crc32_update(uint32_t crc, const void *bytes, size_t len);
