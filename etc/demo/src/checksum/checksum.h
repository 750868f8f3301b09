/* CRC-32 as gzip has it, and SHA-256. */
#ifndef CHECKSUM_H
#define CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint32_t checksum_crc32(const void *data, size_t length);
void checksum_sha256(const void *data, size_t length, unsigned char digest[32]);

#endif
