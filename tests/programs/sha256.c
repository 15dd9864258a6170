/* SHA-256 (FIPS 180-4) of messages of many lengths; rotates, adds, table look-ups. */
#include "runtime.h"

static const u32 K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static u32 rotate(u32 value, int count)
{
    return value >> count | value << (32 - count);
}

static void compress(u32 state[8], const u8 *block)
{
    u32 w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (u32)block[4 * i] << 24 | (u32)block[4 * i + 1] << 16 | (u32)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        u32 a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    for (int i = 0; i < 8; i++)
        s[i] = state[i];
    for (int i = 0; i < 64; i++) {
        u32 e = s[4], a = s[0];
        u32 one = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + K[i] + w[i];
        u32 two = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        for (int j = 7; j > 0; j--)
            s[j] = s[j - 1];
        s[4] += one;
        s[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

static void digest(const u8 *message, u32 size, u32 state[8])
{
    static const u32 START[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    u8 block[64];
    u32 at = 0;
    for (int i = 0; i < 8; i++)
        state[i] = START[i];
    for (; size - at >= 64; at += 64)
        compress(state, message + at);
    u32 rest = size - at;
    for (u32 i = 0; i < 64; i++)
        block[i] = i < rest ? message[at + i] : i == rest ? 0x80 : 0;
    if (rest >= 56) {
        compress(state, block);
        for (u32 i = 0; i < 64; i++)
            block[i] = 0;
    }
    for (u32 i = 0; i < 4; i++)
        block[60 + i] = (u8)(size * 8 >> (24 - 8 * i));
    compress(state, block);
}

static u8 message[1000];

void program(void)
{
    u32 state[8], seed = 12345;
    for (u32 i = 0; i < sizeof message; i++) {
        seed = seed * 1103515245 + 12345;
        message[i] = (u8)(seed >> 16);
    }
    for (u32 size = 0; size <= sizeof message; size += size < 130 ? 1 : 97) {
        digest(message, size, state);
        for (int i = 0; i < 8; i++)
            put_hex(state[i]);
        put_byte('\n');
    }
}
