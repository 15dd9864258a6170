/* The sieve of Eratosthenes over bits, and sums of what it found; loops, shifts, 64-bit adds, division. */
#include "runtime.h"

#define LIMIT 100000
static u32 composite[LIMIT / 32 + 1];

void program(void)
{
    u32 count = 0, last = 0;
    u64 sum = 0;
    for (u32 n = 2; n * n < LIMIT; n++)
        if (!(composite[n / 32] >> n % 32 & 1))
            for (u32 m = n * n; m < LIMIT; m += n)
                composite[m / 32] |= 1u << m % 32;
    for (u32 n = 2; n < LIMIT; n++) {
        if (composite[n / 32] >> n % 32 & 1)
            continue;
        count++;
        sum += (u64)n * n;
        last = n;
        if (count % 500 == 0) {
            put_number((int)n);
            put_byte(' ');
        }
    }
    put_byte('\n');
    put_number((int)count);
    put_byte(' ');
    put_number((int)last);
    put_byte(' ');
    put_hex((u32)(sum >> 32));
    put_hex((u32)sum);
    put_byte('\n');
}
