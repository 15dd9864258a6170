/* The host's side of runtime.h: the same program, run natively, says what is right. */
#include <stdio.h>
#include "runtime.h"

void put_byte(u8 byte)
{
    putchar(byte);
}

int main(void)
{
    program();
    return 0;
}
