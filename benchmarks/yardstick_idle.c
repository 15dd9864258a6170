/* What 250 timer ticks a second cost at least: microseconds of CPU time a tick, printed.
 *
 *   yardstick_idle sleep TICKS HZ   a process that does nothing but sleep
 *   yardstick_idle kvm TICKS HZ     a guest on KVM without chips: sleep, interrupt, handler with a store that nobody backs (as the
 *                                   end of an interrupt is one), IRET, HLT; the calls are those that belljar makes
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RAM_SIZE = 0x10000, CODE_GPA = 0x1000, HANDLER_GPA = 0x2000, STACK_GPA = 0x8000, VECTOR = 0x40, UNBACKED_GPA = 0xF0000 };

/* Real mode. Main: sti; again: hlt; jmp again. Handler: about as long as that of ticks.S. */
static const unsigned char code[] = {0xfb, 0xf4, 0xeb, 0xfd};
static const unsigned char handler[] = {
    0x66, 0x50, 0x66, 0x51, 0x66, 0x52,                         /* push eax, ecx, edx */
    0x49, 0x66, 0x89, 0xc8, 0x66, 0x01, 0xc3, 0x66, 0x31, 0xd2, /* dec cx; mov eax, ecx; add ebx, eax; xor edx, edx */
    0x26, 0x66, 0xc7, 0x06, 0xb0, 0x00, 0, 0, 0, 0,             /* mov dword [es:0xB0], 0 */
    0x66, 0x5a, 0x66, 0x59, 0x66, 0x58, 0xcf,                   /* pop edx, ecx, eax; iret */
};

static long long ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void sleep_until(long long end_ns) {
    static unsigned word;
    struct timespec end = {end_ns / 1000000000LL, end_ns % 1000000000LL};
    syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, &end, NULL, FUTEX_BITSET_MATCH_ANY);
}

static int checked(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static int vcpu_fd;
static struct kvm_run *run;
static int syncs_events;

static void enter(void) {
    do checked(ioctl(vcpu_fd, KVM_RUN, 0), "KVM_RUN");
    while (run->exit_reason == KVM_EXIT_MMIO);
    if (run->exit_reason != KVM_EXIT_HLT) {
        fprintf(stderr, "exit %u\n", run->exit_reason);
        exit(1);
    }
}

static void make_guest(void) {
    int kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    int vm = checked(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    char *ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = RAM_SIZE, .userspace_addr = (unsigned long)ram};
    struct kvm_regs regs = {.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2};
    struct kvm_sregs sregs;
    checked(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    memcpy(ram + CODE_GPA, code, sizeof code);
    memcpy(ram + HANDLER_GPA, handler, sizeof handler);
    *(unsigned *)(ram + 4 * VECTOR) = HANDLER_GPA;
    vcpu_fd = checked(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    checked(ioctl(vcpu_fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    sregs.cs.base = sregs.cs.selector = 0;
    sregs.es.base = UNBACKED_GPA;
    sregs.es.selector = UNBACKED_GPA >> 4;
    checked(ioctl(vcpu_fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    checked(ioctl(vcpu_fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
    syncs_events = (checked(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS), "KVM_CAP_SYNC_REGS") & KVM_SYNC_X86_EVENTS) != 0;
    run->kvm_valid_regs = syncs_events ? KVM_SYNC_X86_EVENTS : 0;
    enter();
}

static void interrupt(void) {
    if (syncs_events) {
        struct kvm_vcpu_events *events = &run->s.regs.events;
        events->flags = 0;
        events->interrupt.injected = 1;
        events->interrupt.nr = VECTOR;
        events->interrupt.soft = 0;
        run->kvm_dirty_regs = KVM_SYNC_X86_EVENTS;
    } else {
        struct kvm_interrupt number = {VECTOR};
        checked(ioctl(vcpu_fd, KVM_INTERRUPT, &number), "KVM_INTERRUPT");
    }
    enter();
}

int main(int count, char **words) {
    if (count != 4) return 2;
    int guest = !strcmp(words[1], "kvm"), ticks = atoi(words[2]);
    long long period = 1000000000LL / atoi(words[3]);
    if (guest) make_guest();
    long long used = ns(CLOCK_PROCESS_CPUTIME_ID), due = ns(CLOCK_MONOTONIC);
    for (int tick = 0; tick < ticks; tick++) {
        sleep_until(due += period);
        if (guest) interrupt();
    }
    printf("%.3f\n", (ns(CLOCK_PROCESS_CPUTIME_ID) - used) / 1e3 / ticks);
    return 0;
}
