/*
 * The yardstick: what belljar's KVM benchmarks do, in C, with the same ioctls and nothing else.
 *
 *   yardstick exits  CODE            run real-mode CODE (hex) until HLT, counting port exits
 *   yardstick console CODE           the same, collecting each byte written and writing them to /dev/null at the end
 *   yardstick hello  CODE COUNT      COUNT times: create a VM, run CODE in long mode to HLT, destroy it
 *
 * Prints the nanoseconds it took, and how many exits there were.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_SIZE (16UL << 20)
#define LOAD_GPA 0x1000UL
#define MAX_CPUID 256

struct vm {
	int kvm, fd, vcpu, memfd;
	uint8_t *memory;
	struct kvm_run *run;
	size_t run_size;
};

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

static size_t unhex(const char *text, uint8_t *out)
{
	size_t n = strlen(text) / 2;
	for (size_t i = 0; i < n; i++) {
		unsigned byte;
		if (sscanf(text + 2 * i, "%2x", &byte) != 1)
			die("bad hex");
		out[i] = (uint8_t)byte;
	}
	return n;
}

static void create(struct vm *vm, const uint8_t *code, size_t size)
{
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[MAX_CPUID]; } cpuid;

	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		die("/dev/kvm");
	call(vm->kvm, KVM_GET_API_VERSION, 0, "KVM_GET_API_VERSION");
	vm->run_size = (size_t)call(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
	cpuid.head.nent = MAX_CPUID;
	call(vm->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid, "KVM_GET_SUPPORTED_CPUID");
	vm->fd = call(vm->kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
	vm->memfd = memfd_create("yardstick", MFD_CLOEXEC);
	if (vm->memfd < 0 || ftruncate(vm->memfd, MEMORY_SIZE))
		die("memfd");
	vm->memory = mmap(0, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vm->memfd, 0);
	if (vm->memory == MAP_FAILED)
		die("mmap");
	struct kvm_userspace_memory_region region = {
		.slot = 0, .guest_phys_addr = 0, .memory_size = MEMORY_SIZE, .userspace_addr = (uintptr_t)vm->memory,
	};
	call(vm->fd, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	vm->vcpu = call(vm->fd, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	vm->run = mmap(0, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	if (vm->run == MAP_FAILED)
		die("mmap run");
	call(vm->vcpu, KVM_SET_CPUID2, &cpuid, "KVM_SET_CPUID2");
	memcpy(vm->memory + LOAD_GPA, code, size);
}

static void destroy(struct vm *vm)
{
	munmap(vm->run, vm->run_size);
	close(vm->vcpu);
	close(vm->fd);
	munmap(vm->memory, MEMORY_SIZE);
	close(vm->memfd);
	close(vm->kvm);
}

static void start(struct vm *vm, int long_mode)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = LOAD_GPA, .rflags = 2, .rsp = 0x8000 };

	call(vm->vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (long_mode) {
		uint64_t top = MEMORY_SIZE - 0x6000;
		uint64_t *pml4 = (uint64_t *)(vm->memory + top), *pdpt = pml4 + 512;
		pml4[0] = (top + 0x1000) | 3;
		for (int i = 0; i < 4; i++) {
			uint64_t *pd = pml4 + 512 * (2 + i);
			pdpt[i] = (top + 0x2000 + 0x1000 * (uint64_t)i) | 3;
			for (uint64_t j = 0; j < 512; j++)
				pd[j] = (((uint64_t)i * 512 + j) << 21) | 0x83;
		}
		sregs.cr3 = top;
		sregs.cr4 = 1 << 5;
		sregs.cr0 = 0x80000001 | 1 << 4;
		sregs.efer = 0x500;
		sregs.cs = (struct kvm_segment){ .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1 };
		sregs.ds = (struct kvm_segment){ .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
		sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
	}
	call(vm->vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	call(vm->vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

static uint64_t run(struct vm *vm, uint8_t *console, size_t limit)
{
	uint64_t exits = 0;
	for (;;) {
		call(vm->vcpu, KVM_RUN, 0, "KVM_RUN");
		if (vm->run->exit_reason == KVM_EXIT_HLT)
			return exits;
		if (vm->run->exit_reason != KVM_EXIT_IO) {
			fprintf(stderr, "unexpected exit %u\n", vm->run->exit_reason);
			exit(1);
		}
		if (console && exits < limit)
			console[exits] = *((uint8_t *)vm->run + vm->run->io.data_offset);
		exits++;
	}
}

int main(int argc, char **argv)
{
	static uint8_t code[4096], console[1 << 24];
	struct vm vm;

	if (argc < 3 || strlen(argv[2]) > 2 * sizeof code)
		return 2;
	size_t size = unhex(argv[2], code);
	uint64_t exits = 0, began;
	if (!strcmp(argv[1], "hello") && argc == 4) {
		int count = atoi(argv[3]);
		began = now_ns();
		for (int i = 0; i < count; i++) {
			create(&vm, code, size);
			start(&vm, 1);
			exits += run(&vm, console, sizeof console);
			destroy(&vm);
		}
		printf("%llu %llu\n", (unsigned long long)(now_ns() - began), (unsigned long long)exits);
		return 0;
	}
	create(&vm, code, size);
	start(&vm, 0);
	int sink = open("/dev/null", O_WRONLY);
	began = now_ns();
	exits = run(&vm, strcmp(argv[1], "console") ? NULL : console, sizeof console);
	if (!strcmp(argv[1], "console") && write(sink, console, exits) < 0)
		die("write");
	printf("%llu %llu\n", (unsigned long long)(now_ns() - began), (unsigned long long)exits);
	destroy(&vm);
	return 0;
}
