"""Every number and every layout against the machine's own <linux/kvm.h>."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from belljar.kvm.abi import caps, flags, ioctls, run, structs, structs_vcpu, structs_vm
from belljar.kvm.abi.layout import Structure
from kvm.header import compiler, evaluate

# Structures of ours that the kernel has as an unnamed part of another: the C type, and the member of it.
PARTS = {
    "kvm_exception_events": ("struct kvm_vcpu_events", "exception"),
    "kvm_interrupt_events": ("struct kvm_vcpu_events", "interrupt"),
    "kvm_nmi_events": ("struct kvm_vcpu_events", "nmi"),
    "kvm_smi_events": ("struct kvm_vcpu_events", "smi"),
    "kvm_irqchip_union": ("struct kvm_irqchip", "chip"),
    "kvm_irq_routing_union": ("struct kvm_irq_routing_entry", "u"),
    "kvm_run_sync": ("struct kvm_run", "s"),
    **{
        f"kvm_run_{part}": ("struct kvm_run", part)
        for part in (
            "hw", "fail_entry", "ex", "io", "mmio", "hypercall", "tpr_access", "internal", "emulation_failure",
            "system_event", "eoi", "msr", "notify", "memory_fault",
        )
    },
    "kvm_run_debug": ("struct kvm_run", "debug.arch"),
}  # fmt: skip

# Fields that are called otherwise here.
FIELDS = {
    ("kvm_vcpu_events", "triple_fault_pending"): "triple_fault.pending",
    ("kvm_guest_debug", "debugreg"): "arch.debugreg",
    ("kvm_nested_state", "total_size"): "size",
    ("kvm_memory_attributes", "length"): "size",
    ("kvm_create_guest_memfd", "length"): "size",
    ("kvm_pre_fault_memory", "length"): "size",
    ("kvm_coalesced_mmio_zone", "length"): "size",
    ("kvm_stats_desc", "count"): "size",
    ("kvm_stats_desc", "exponent_u16"): "exponent",
    ("kvm_run_io", "item_size"): "size",
    ("kvm_run_memory_fault", "length"): "size",
    ("kvm_run", "exit"): "padding",
    ("kvm_xen_exit", "longmode"): "u.hcall.longmode",
    ("kvm_xen_exit", "cpl"): "u.hcall.cpl",
    ("kvm_xen_exit", "input"): "u.hcall.input",
    ("kvm_xen_exit", "result"): "u.hcall.result",
    ("kvm_xen_exit", "params"): "u.hcall.params",
    ("kvm_run_hypercall", "flags"): "longmode",
}

# Fields that are no member in C: padding that the compiler makes, and a union without a name.
UNNAMED = {("kvm_xen_exit", "pad"), ("kvm_irq_routing_union", "xen_evtchn"), ("kvm_run_exit", "")}

# Laid out as part of `struct kvm_run`, whose size says all there is to say.
WHOLE_UNION = "kvm_run_exit"

# The newest header may call these otherwise: `longmode` became `flags` in Linux 6.6.
ALTERNATIVES = {("kvm_run_hypercall", "flags"): "flags"}

# Numbers that no header of user space has, or has under a name without a value.
NOT_IN_HEADER = {"KVM_HC_MAP_GPA_RANGE"}


def _structures() -> Iterator[type[Structure]]:
    for module in (structs_vcpu, structs_vm, run):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Structure) and value.__module__ == module.__name__:
                yield value


def _numbers(module: ModuleType) -> dict[str, int]:
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, int) and name not in NOT_IN_HEADER
    }


STRUCTURES = [structure for structure in _structures() if structure.__name__ != WHOLE_UNION]
NUMBERS = {**_numbers(ioctls), **_numbers(caps), **_numbers(flags), **_numbers(run)}


def _size(structure: type[Structure]) -> str:
    name = structure.__name__
    if name in PARTS:
        owner, member = PARTS[name]
        return f"sizeof((({owner} *)0)->{member})"
    return f"sizeof(struct {name})"


def _offset(structure: type[Structure], c_name: str) -> str:
    name = structure.__name__
    if name in PARTS:
        owner, member = PARTS[name]
        return f"offsetof({owner}, {member}.{c_name}) - offsetof({owner}, {member})"
    return f"offsetof(struct {name}, {c_name})"


def _fields(structure: type[Structure]) -> Iterator[tuple[str, list[str]]]:
    """Each field's name with the C expressions for its offset, in the order to try them."""
    for field in structure.fields:
        key = (structure.__name__, field)
        if key in UNNAMED:
            continue
        names = [FIELDS.get(key, field)] + ([ALTERNATIVES[key]] if key in ALTERNATIVES else [])
        yield field, [_offset(structure, name) for name in names]


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    if compiler() is None:
        pytest.skip("there is no C compiler to ask about <linux/kvm.h>")
    expressions = list(NUMBERS)
    for structure in STRUCTURES:
        expressions.append(_size(structure))
        for _, offsets in _fields(structure):
            expressions += offsets
    return evaluate(expressions, tmp_path_factory.mktemp("header"))


@pytest.mark.parametrize("name", NUMBERS)
def test_number_is_that_of_the_header(header: dict[str, int], name: str) -> None:
    if name not in header:
        pytest.skip(f"this machine's <linux/kvm.h> is older than {name}")
    assert NUMBERS[name] == header[name]


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.__name__)
def test_structure_is_laid_out_as_in_the_header(header: dict[str, int], structure: type[Structure]) -> None:
    if _size(structure) not in header:
        pytest.skip(f"this machine's <linux/kvm.h> is older than {structure.__name__}")
    assert structure.size == header[_size(structure)]
    for field, offsets in _fields(structure):
        known = [header[offset] for offset in offsets if offset in header]
        assert known, f"{structure.__name__}.{field} is not in the header"
        assert structure.fields[field].offset == known[0], field


def test_header_knows_most_of_what_is_declared(header: dict[str, int]) -> None:
    """If the program silently answered nothing, every test above would be skipped."""
    assert sum(name in header for name in NUMBERS) > 0.9 * len(NUMBERS)
    assert sum(_size(structure) in header for structure in STRUCTURES) > 0.85 * len(STRUCTURES)


def test_exit_part_of_the_run_page_is_256_bytes() -> None:
    assert run.kvm_run_exit.size == 256


def _sized() -> list[str]:
    """The calls that are named like the structure they take."""
    return [name for name, number in _numbers(ioctls).items() if number >> 16 and hasattr(structs, name.lower())]


@pytest.mark.parametrize("name", _sized())
def test_ioctl_number_holds_its_structures_size(name: str) -> None:
    structure = getattr(structs, name.lower())
    assert vars(ioctls)[name] >> 16 & 0x3FFF == structure.size


@pytest.mark.parametrize(
    ("call", "structure"),
    [
        ("KVM_SET_USER_MEMORY_REGION2", structs.kvm_userspace_memory_region2),
        ("KVM_SET_MEMORY_ATTRIBUTES", structs.kvm_memory_attributes),
        ("KVM_CREATE_GUEST_MEMFD", structs.kvm_create_guest_memfd),
        ("KVM_PRE_FAULT_MEMORY", structs.kvm_pre_fault_memory),
    ],
)
def test_newest_calls_hold_their_structures_size(call: str, structure: type[Structure]) -> None:
    """A header of Linux 6.1 cannot vouch for these."""
    assert vars(ioctls)[call] >> 16 & 0x3FFF == structure.size


def test_names_of_numbers() -> None:
    assert ioctls.name_of(ioctls.KVM_RUN) == "KVM_RUN"
    assert ioctls.name_of(0x1234) == "ioctl 0x1234"
    assert caps.name_of(caps.KVM_CAP_IRQCHIP) == "KVM_CAP_IRQCHIP"
    assert caps.name_of(9999) == "capability 9999"
