/*
 * The yardstick for interrupts: how long from a signalled irqfd to the first port exit of a halted vCPU's handler.
 *
 *   yardstick_irq CODE GSI COUNT     real-mode CODE (hex) at 0x1000 that halts for ever, its handler writes to port 0x80
 *
 * Prints the median in nanoseconds of COUNT interrupts.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_SIZE (16UL << 20)
#define LOAD_GPA 0x1000UL
#define PAUSE_US 300
#define MAX_COUNT 100000

static int kvm, vm, vcpu, done;
static struct kvm_run *run;
static uint64_t arrived_ns, took_ns[MAX_COUNT];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int call(int fd, unsigned long request, void *argument, const char *what)
{
	int result = ioctl(fd, request, argument);
	if (result < 0)
		die(what);
	return result;
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn)) static void *run_vcpu(void *unused)
{
	(void)unused;
	for (;;) {
		call(vcpu, KVM_RUN, 0, "KVM_RUN");
		if (run->exit_reason != KVM_EXIT_IO || run->io.port != 0x80)
			die("unexpected exit");
		arrived_ns = now_ns();
		if (eventfd_write(done, 1))
			die("eventfd_write");
	}
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_irqfd irqfd = { 0 };
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = LOAD_GPA, .rflags = 2, .rsp = 0x8000 };
	pthread_t thread;
	eventfd_t value;

	if (argc != 4 || atoi(argv[3]) > MAX_COUNT)
		return 2;
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm");
	vm = call(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
	call(vm, KVM_SET_TSS_ADDR, (void *)0xfeffd000, "KVM_SET_TSS_ADDR");
	call(vm, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
	call(vm, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
	uint8_t *memory = mmap(0, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; argv[1][2 * i]; i++) {
		unsigned byte;
		if (sscanf(argv[1] + 2 * i, "%2x", &byte) != 1)
			die("bad hex");
		memory[LOAD_GPA + i] = (uint8_t)byte;
	}
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE, .userspace_addr = (uintptr_t)memory };
	call(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	vcpu = call(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	run = mmap(0, (size_t)call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "size"), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		die("mmap run");
	call(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	call(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	call(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
	irqfd.fd = (uint32_t)eventfd(0, EFD_CLOEXEC);
	irqfd.gsi = (uint32_t)atoi(argv[2]);
	done = eventfd(0, EFD_CLOEXEC);
	call(vm, KVM_IRQFD, &irqfd, "KVM_IRQFD");
	if (pthread_create(&thread, 0, run_vcpu, 0))
		die("pthread_create");
	int count = atoi(argv[3]);
	for (int i = 0; i < count; i++) {
		usleep(PAUSE_US); /* until the vCPU has halted */
		uint64_t began = now_ns();
		if (eventfd_write((int)irqfd.fd, 1) || eventfd_read(done, &value))
			die("eventfd");
		took_ns[i] = arrived_ns - began;
	}
	qsort(took_ns, (size_t)count, sizeof *took_ns, compare);
	printf("%lu\n", (unsigned long)took_ns[count / 2]);
	return 0;
}
