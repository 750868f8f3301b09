#include "checksum.h"

#include <string.h>
#include <tables.h>

uint32_t checksum_crc32(const void *data, size_t length)
{
    const unsigned char *byte = data;
    uint32_t value = 0xffffffffu;
    while (length--)
        value = crc_table[(value ^ *byte++) & 0xff] ^ value >> 8;
    return ~value;
}

static uint32_t rotate(uint32_t word, int count)
{
    return word >> count | word << (32 - count);
}

static void block(uint32_t state[8], const unsigned char data[64])
{
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 | (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    uint32_t s[8];
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t one = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha256_rounds[i] + w[i];
        uint32_t two = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

void checksum_sha256(const void *data, size_t length, unsigned char digest[32])
{
    uint32_t state[8];
    memcpy(state, sha256_start, sizeof state);
    const unsigned char *rest = data;
    size_t left = length;
    for (; left >= 64; left -= 64, rest += 64)
        block(state, rest);
    unsigned char last[128] = {0};
    if (left > 0)
        memcpy(last, rest, left);
    last[left] = 0x80;
    size_t total = left < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++)
        last[total - 1 - i] = ((uint64_t)length * 8) >> (8 * i);
    block(state, last);
    if (total == 128)
        block(state, last + 64);
    for (int i = 0; i < 32; i++)
        digest[i] = state[i / 4] >> (24 - 8 * (i % 4));
}
