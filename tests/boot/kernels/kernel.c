/* Prints on port 0xE9 all that a multiboot loader handed over, as a kernel would find it. */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

static const char digits[] = "0123456789abcdef";
static u32 zeroed[256];

static void put(char c) { __asm__ volatile("outb %0, $0xe9" : : "a"(c)); }

static void text(const char *s) {
    while (*s)
        put(*s++);
}

static void hex(u64 value) {
    int shift = 60;
    while (shift && !(value >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        put(digits[(value >> shift) & 15]);
}

static void field(const char *name, u64 value) {
    put(' ');
    text(name);
    put('=');
    hex(value);
}

static void quoted(const char *name, u32 address) {
    text(name);
    text(" '");
    text((const char *)address);
    text("'\n");
}

static void state(u32 magic, u32 info, u32 eflags) {
    u32 cr0, sum = 0;
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    for (u32 i = 0; i < 256; i++)
        sum |= zeroed[i];
    volatile u32 *low = (u32 *)0x80000, *high = (u32 *)0x180000;
    *low = 1;
    *high = 2;
    text("entry");
    field("magic", magic);
    field("pe", cr0 & 1);
    field("pg", cr0 >> 31);
    field("if", eflags >> 9 & 1);
    field("vm", eflags >> 17 & 1);
    field("a20", *low == 1);
    field("bss", sum);
    field("aligned", info % 8);
    put('\n');
}

static void memory(u32 lower, u32 upper) {
    text("memory");
    field("lower", lower);
    field("upper", upper);
    put('\n');
}

static void range(const u32 *entry) {
    text("range");
    field("gpa", (u64)entry[1] << 32 | entry[0]);
    field("size", (u64)entry[3] << 32 | entry[2]);
    field("type", entry[4]);
    put('\n');
}

static void module(u32 start, u32 end, u32 words) {
    u32 sum = 0;
    for (u32 at = start; at < end; at++)
        sum = sum * 31 + *(u8 *)at;
    text("module");
    field("size", end - start);
    field("unaligned", start & 4095);
    field("sum", sum);
    quoted("", words);
}

#if MULTIBOOT == 1
static void walk(u32 address) {
    const u32 *info = (u32 *)address;
    text("flags");
    field("", info[0]);
    put('\n');
    memory(info[1], info[2]);
    u32 at = info[12], end = info[12] + info[11];
    while (at < end) {
        range((u32 *)(at + 4));
        at += *(u32 *)at + 4;
    }
    const u32 *entry = (u32 *)info[6];
    for (u32 i = 0; i < info[5]; i++, entry += 4)
        module(entry[0], entry[1], entry[2]);
    quoted("command line", info[4]);
    quoted("loader", info[16]);
}
#else
static void walk(u32 address) {
    const u32 *info = (u32 *)address;
    u32 at = address + 8;
    for (;;) {
        const u32 *tag = (u32 *)at;
        u32 size = tag[1];
        if (tag[0] == 0)
            break;
        if (tag[0] == 1)
            quoted("command line", at + 8);
        else if (tag[0] == 2)
            quoted("loader", at + 8);
        else if (tag[0] == 3)
            module(tag[2], tag[3], at + 16);
        else if (tag[0] == 4)
            memory(tag[2], tag[3]);
        else if (tag[0] == 6)
            for (u32 entry = at + 16; entry < at + size; entry += tag[2])
                range((u32 *)entry);
        else {
            text("tag");
            field("type", tag[0]);
            put('\n');
        }
        at += (size + 7) & -8u;
    }
    text("total");
    field("left", info[0] - (at + 8 - address));
    field("reserved", info[1]);
    put('\n');
}
#endif

void kernel_main(u32 magic, u32 info, u32 eflags) {
    state(magic, info, eflags);
    walk(info);
}
