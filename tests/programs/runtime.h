/* What every test program is written against: bytes out, nothing else. Hosted, a byte goes to stdout; as a guest, to
   port 0xE9. No libc, no floating point, no 64-bit division (libgcc is not linked). */
#ifndef RUNTIME_H
#define RUNTIME_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

void put_byte(u8 byte);

__attribute__((unused)) static void put_text(const char *text)
{
    while (*text)
        put_byte((u8)*text++);
}

__attribute__((unused)) static void put_hex(u32 value)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        put_byte((u8)"0123456789abcdef"[value >> shift & 15]);
}

__attribute__((unused)) static void put_number(int value)
{
    char digits[12];
    int at = 0;
    u32 rest = value < 0 ? 0u - (u32)value : (u32)value;
    if (value < 0)
        put_byte('-');
    do
        digits[at++] = (char)('0' + rest % 10);
    while (rest /= 10);
    while (at)
        put_byte((u8)digits[--at]);
}

/* gcc calls these by itself for structures and arrays. */
void *memcpy(void *to, const void *from, __SIZE_TYPE__ size);
void *memset(void *to, int value, __SIZE_TYPE__ size);
void program(void);

#endif
