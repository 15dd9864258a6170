# One processor. Registers and the state of the hot path come first; new fields go to the end of their section.

ctypedef struct Cpu:
    # --- slots that Insn names by byte offset: keep the order (SLOT_*)
    u64 gpr[16]
    u64 zero
    u64 rip                # at block entries: exact. Inside a block: address of the block's first byte
    u64 base[8]            # segment bases: ES CS SS DS FS GS LDTR TR
    u64 big                # 0x40000000
    # --- lazy flags (core/flags.py)
    u64 flag_result        # sign-extended: SF is its sign, PF the parity of its low byte
    u64 flag_zero          # ZF is set when this is 0
    u64 flag_x             # CF, OF, AF are those of x + y = z, all sign-extended
    u64 flag_y
    u64 flag_z
    u64 rflags             # the other flags; arithmetic bits 0, bit 1 set
    # --- the run loop
    i64 remaining          # instructions left in this slice
    i64 slice              # what `remaining` began with
    u32 events             # EVENT_*; read together with `kicked` as one 64-bit word
    u32 kicked             # set by kick() from any thread
    u64 bind               # epoch << 16 | mode: which bound blocks are valid now
    TlbEntry *tlb_read     # tables for the present context; an always-empty one when every access must be looked at
    TlbEntry *tlb_write
    TlbEntry *tlb_fetch
    Host *host
    Block **jumps          # host.jumps
    u64 epoch              # renewed by each TLB flush
    u64 retired            # instructions retired before this slice
    u64 budget             # instructions still allowed by enter() after this slice
    u32 mode               # MODE_*
    u32 cpl
    Insn *insn             # the instruction at work, for complex operations and after FAULT
    u64 insn_rip           # its RIP (complex operations, faults)
    u64 next_rip           # RIP of the instruction after it, wrapped to the code size
    # --- pending exception (FAULT)
    u32 exception          # vector
    u32 exception_kind     # KIND_*
    u32 exception_error
    u32 exception_has_error
    u64 exception_cr2      # #PF: linear address; #DB: bits to set in DR6
    u64 pending_debug      # debug traps collected while an instruction ran: DR6 bits
    # --- memory slow path
    Block *found           # answer of find_block
    u64 idle_at            # cpu.retired when it last grew
    u64 idle_rounds        # of the run loop since
    u64 charged            # rounds charged to budgets in place of instructions
    u64 exit_ns            # what the time-stamp counter is moved on by for an exit that was served
    u64 exits_ns           # how far it was moved on for all of them
    i32 repetitions        # how often a REP instruction may go round before it answers AGAIN
    u8 bounce[64]          # stands for memory that cannot be touched in place
    u64 bounce_linear
    u8 *bounce_host[2]     # where the two parts go
    u64 bounce_hpa[2]
    u32 bounce_split       # bytes in the first part
    u32 bounce_size
    u32 code_hit           # a store reached decoded code: the block must end after this instruction
    int memory_status      # FAULT or EXIT: why an access function answered NULL
    u64 linear             # answer of slow_linear
    u32 context            # TLB context of explicit accesses (0..2)
    u32 address_mask_bits  # 64 in IA-32e mode, else 32: how wide linear addresses are
    u8 *fill_host          # answer of tlb_fill: host address of the byte asked for
    u64 fill_hpa           # its host-physical address
    TlbEntry *tlb          # bank.entries
    TlbBank *bank          # in use
    TlbEntry *tlb_none     # an empty table
    # --- system state
    Segment segment[8]
    u64 gdt_base
    u64 idt_base
    u32 gdt_limit
    u32 idt_limit
    u64 cr0
    u64 cr2
    u64 cr3
    u64 cr4
    u64 cr8
    u64 efer
    u64 xcr0
    u64 dr[8]              # 4 and 5 unused
    u32 pkru
    u32 activity           # ACTIVE...
    u32 interruptibility   # SHADOW_* | BLOCKED_*
    u32 stepped            # run loop: this instruction runs alone
    u64 features           # what exists: FEATURE_* bits (core/features.py); consulted when decoding
    # --- MSRs
    u64 star
    u64 lstar
    u64 cstar
    u64 fmask
    u64 kernel_gs_base
    u64 sysenter_cs
    u64 sysenter_esp
    u64 sysenter_eip
    u64 tsc_offset
    u64 tsc_multiplier     # 16.48 fixed point; 0: no scaling
    u64 tsc_aux
    # --- waiting for another processor (core/waiting.py)
    u64 wait_due           # cpu.retired at which to look whether it does
    u64 wait_step          # from there to the next time
    u64 wait_begin         # cpu.retired when it began to look
    u64 waited_at          # cpu.retired when it last found so
    u64 wait_rip           # where the way round begins, and what it found there
    u64 wait_state[22]
    u64 wait_old
    u8 *wait_place         # of the one store on the way
    u32 wait_size
    u32 wait_stores        # 2: too many
    u32 wait_phase         # 0: does not look; 1: until a branch; 2: until it comes back to wait_rip
    u32 noting_stores
    u32 waits_out          # it does not look at all
    u64 pause_first        # instructions retired at the first PAUSE of a loop, and at the last (SDM 3C 26.1.3)
    u64 pause_last
    u64 pat
    u64 mtrr_default       # IA32_MTRR_DEF_TYPE
    u64 mtrr_fixed[11]     # in the order of their numbers
    u64 mtrr_variable[16]  # base and mask of each, as numbered from 200H
    u64 apic_base
    u64 misc_enable
    u64 debugctl
    u64 tsc_base           # the time-stamp counter when nothing had been counted; or when the host's clock was 0
    u32 tsc_host           # it goes on with the host's monotonic clock instead of instructions
    u64 random             # state of the generator behind RDRAND and RDSEED; never 0
    u32 io_string          # the instruction asking vmx_io is INS or OUTS
    # --- the event under delivery: 0, or as in the VMCS's IDT-vectoring fields (SDM 3C 25.9.3)
    u32 vectoring_info
    u32 vectoring_error
    u32 vectoring_length
    # --- a task switch at work
    u32 task_ext           # EXT of its faults
    u64 task_return_rip    # what the old task's TSS gets
    u64 task_rf            # FLAG_RF if the old task's flags image has it
    # --- paging
    u64 pdpte[4]           # the PDPTE registers of PAE paging (SDM 3A 4.4.1)
    TlbBank banks[8]
    u64 bank_clock
    u32 fill_device        # tlb_fill found a device (only while a window is open): fill_hpa is its guest-physical address
    u32 ept_allowed        # rights of the last EPT walk (1 read, 2 write, 4 fetch)
    NestedEntry nested[256]  # by guest-physical page number
    NestedEntry nested_large[256]  # by the number of the 2 MiB, where nested tables map so many at once
    DirectoryEntry directories[64]
    u32 walk_shortened     # the walk began at one of them
    u64 walk_generation    # renewed by whatever flushes the TLB, all or a page of it
    u64 walk_gpa           # answer of the guest walk
    u32 walk_global
    u32 walk_shift         # log2 of the page size
    # --- VMX: valid while in_guest
    u32 in_guest
    u32 pin_controls
    u32 primary_controls
    u32 secondary_controls
    u32 entry_controls
    u32 exit_controls
    u32 exception_bitmap
    u32 exit_reason
    u64 eptp               # 0: no EPT, guest-physical = host-physical
    Vmcs *vmcs
    u64 cr0_mask
    u64 cr0_shadow
    u64 cr4_mask
    u64 cr4_shadow
    u8 *io_bitmap[2]       # NULL: no I/O bitmaps
    u8 *msr_bitmap         # NULL: no MSR bitmaps
    u64 exit_qualification
    u64 exit_gpa
    u64 exit_linear
    u64 entry_payload      # CR2 or DR6 bits of the exception that the next entry injects
    u32 entry_has_payload
    u32 entered            # a guest executes while Python does not know
    u32 exit_length
    u32 exit_information   # VM-exit instruction information
    u32 exit_interruption  # VM-exit interruption information
    u32 exit_error
    u64 timer_end          # instructions_retired at which the VMX preemption timer expires
    u64 entry_retired      # instructions_retired at the last VM entry
    # --- the host's own debugging (core/watch.py)
    u32 stop_on_delivery   # run_guest comes back after each exception that it delivered
    u32 watched            # breakpoints or watchpoints are set: one instruction at a time
    u32 watch_hit          # 1 + number of the watchpoint that the present instruction hit
    u32 breakpoint_count
    u32 watchpoint_count
    u64 *breakpoints       # linear addresses, ascending
    Watchpoint *watchpoints
    # --- the window to devices: open while the hypervisor has one instruction emulated
    void *window           # the Python object that answers; NULL: closed
    u32 window_used
    u32 window_failed
    u64 window_gpa         # a page that is known to be a device's; ALL_ONES: none
    u8 window_page[4096]   # stands for the device's page
    u32 bounce_device[2]   # whether a part of the bounce buffer belongs to a device
    Cpu *next_cpu
