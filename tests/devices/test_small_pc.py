"""The rest of a small PC: ACPI timer, keyboard controller, resets, PCI, firmware configuration, the test device."""

from __future__ import annotations

import pytest

from belljar.devices.clock import InstructionClock
from belljar.devices.fw_cfg import FwCfg, Item
from belljar.devices.pci import PciHost
from belljar.devices.pm_timer import PmTimer
from belljar.errors import ConfigurationError
from devices.pc import Pc


@pytest.mark.parametrize("bits", [24, 32])
def test_the_acpi_timer_counts_at_its_rate_and_wraps(bits: int) -> None:
    clock = InstructionClock()
    timer = PmTimer(clock, bits=bits)
    clock.advance(10**9)
    assert timer.port_read(0x608, 4) == 3_579_545
    assert timer.port_read(0x609, 1) == 3_579_545 >> 8 & 0xFF
    timer.port_write(0x608, 4, 0)
    change_ns = timer.next_change_ns()
    clock.advance_to(change_ns - 1)
    before = timer.changes_of_top_bit()
    clock.advance(1)
    assert (timer.changes_of_top_bit(), timer.value()) == (before + 1, 1 << bits - 1)
    clock.advance(2_000 * 10**9)
    assert timer.value() < 1 << bits


def test_an_acpi_timer_of_another_width_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="24 or 32 bits, not 16"):
        PmTimer(InstructionClock(), bits=16)


def test_the_keyboard_controller_answers_its_tests() -> None:
    pc = Pc()
    for command, answer in ((0xAA, 0x55), (0xAB, 0), (0xA9, 1), (0x20, 0x65), (0xC0, 0x80), (0xD0, 3)):
        assert not pc.inb(0x64) & 1
        pc.out(0x64, command)
        assert pc.inb(0x64) & 0x0B == 0x09
        assert pc.inb(0x60) == answer
    pc.out(0x64, 0x60)
    pc.out(0x60, 0x74)
    pc.out(0x64, 0x20)
    assert pc.inb(0x60) == 0x74


def test_the_keyboard_answers_commands_and_interrupts_with_keys() -> None:
    pc = Pc()
    for sent, answers in (
        ((0xFF,), (0xFA, 0xAA)), ((0xF2,), (0xFA, 0xAB, 0x41)), ((0xEE,), (0xEE,)), ((0xED, 2), (0xFA, 0xFA)),
        ((0xF0, 1), (0xFA, 0xFA)), ((0xF0, 0), (0xFA, 0xFA, 0x43)), ((0x00,), (0xFE,)),
    ):  # fmt: skip
        pc.out(0x60, *sent)
        assert tuple(pc.inb(0x60) for _ in answers) == answers
        assert not pc.inb(0x64) & 1
    assert pc.keyboard.type_scancodes(b"\x1e\x9e") == 2
    assert pc.chips.router.level(1)
    assert [pc.inb(0x60), pc.chips.router.level(1), pc.inb(0x60), pc.chips.router.level(1)] == [0x1E, True, 0x9E, False]
    assert pc.keyboard.type_scancodes(bytes(100)) == 16
    pc.out(0x60, 0xF5)
    assert pc.keyboard.type_scancodes(b"\x1e") == 0


def test_without_translation_the_keyboard_says_what_it_is_in_its_own_words() -> None:
    pc = Pc()
    pc.out(0x64, 0x60)
    pc.out(0x60, 0x05)
    for sent, answers in (((0xF2,), (0xFA, 0xAB, 0x83)), ((0xF0, 0), (0xFA, 0xFA, 2))):
        pc.out(0x60, *sent)
        assert tuple(pc.inb(0x60) for _ in answers) == answers


def test_there_are_three_ways_to_reset() -> None:
    pc = Pc()
    pc.out(0x64, 0xFE)
    pc.out(0x64, 0xFF)
    pc.out(0x92, 0x01, 0x01, 0x00, 0x03)
    pc.out(0xCF9, 0x02, 0x06)
    pc.out(0xCF9, 0x00, 0x04)
    assert pc.resets == ["8042", "92", "92", True, False]
    assert (pc.inb(0x92), pc.inb(0xCF9)) == (3, 0)


def test_an_empty_pci_bus_answers_all_ones_but_for_its_bridge() -> None:
    pc = Pc()
    bus = pc.bus

    def config(slot: int, register: int) -> int:
        bus.port_write(0xCF8, 4, 1 << 31 | slot << 11 | register)
        return bus.port_read(0xCFC, 4)

    assert config(0, 0) == 0x12378086
    assert config(0, 8) >> 16 == 0x0600
    assert [config(slot, 0) for slot in range(1, 32)] == [0xFFFFFFFF] * 31
    config(0, 0)
    assert (bus.port_read(0xCFE, 2), bus.port_read(0xCFD, 1)) == (0x1237, 0x80)
    assert bus.port_read(0xCF8, 4) == 1 << 31
    bus.port_write(0xCF8, 4, 0)
    assert bus.port_read(0xCFC, 4) == 0xFFFFFFFF
    bus.port_write(0xCF8, 1, 0xFF)
    assert bus.port_read(0xCF8, 4) == 0
    config(0, 0)
    bus.port_write(0xCFC, 4, 0)
    assert config(0, 0) == 0x12378086
    config(0, 0x40)
    bus.port_write(0xCFD, 1, 0xAB)
    assert config(0, 0x40) == 0xAB00


def test_pci_slots_are_taken_once() -> None:
    host = PciHost()
    with pytest.raises(ConfigurationError, match=r"00:00\.0 is taken"):
        host.add(0, 0, host.bridge)
    with pytest.raises(ConfigurationError, match="no PCI slot"):
        host.add(32, 0, host.bridge)


def item(device: FwCfg, number: int, size: int) -> bytes:
    device.port_write(0x510, 2, number)
    return bytes(device.port_read(0x511, 1) for _ in range(size))


def test_firmware_configuration_tells_what_the_machine_has() -> None:
    device = FwCfg(cpus=3, ram_size=5 << 30, command_line=b"a=1", initrd=b"RD", files={"opt/b": b"2", "etc/a": b"one"})
    assert item(device, Item.SIGNATURE, 5) == b"QEMU\0"
    assert item(device, Item.NB_CPUS, 2) == b"\x03\0"
    assert int.from_bytes(item(device, Item.RAM_SIZE, 8), "little") == 5 << 30
    assert item(device, Item.COMMAND_LINE_DATA, 6) == b"a=1\0\0\0"
    assert item(device, Item.COMMAND_LINE_SIZE, 4) == b"\x04\0\0\0"
    assert item(device, Item.INITRD_DATA, 2) == b"RD"
    directory = item(device, Item.FILE_DIRECTORY, 4 + 2 * 64)
    assert directory[:4] == b"\0\0\0\2"
    assert directory[12:20].rstrip(b"\0") == b"etc/a"
    key = int.from_bytes(directory[8:10], "big")
    assert item(device, key, 4) == b"one\0"
    assert item(device, 0x1234, 4) == bytes(4)
    with pytest.raises(ConfigurationError, match="longer than 55"):
        FwCfg(cpus=1, ram_size=0, files={"x" * 56: b""})


def test_the_test_device_has_a_latch_with_an_alias_lines_flushes_and_io_memory() -> None:
    pc = Pc()
    bus = pc.bus
    bus.port_write(0xE0, 4, 0x12345678)
    assert (bus.port_read(0xE8, 4), bus.port_read(0xE1, 1), bus.port_read(0xE2, 2)) == (0x12345678, 0x56, 0x1234)
    bus.port_write(0xE9, 2, 0xABCD)
    assert bus.port_read(0xE0, 4) == 0x12ABCD78
    bus.port_write(0xE4, 4, 0x12345)
    assert pc.flushed == [0x12000]
    bus.port_write(0x2000, 4, 0x00010001)
    assert [pc.chips.router.level(gsi) for gsi in range(4)] == [True, False, True, False]
    bus.port_write(0x2000, 4, 0)
    assert not pc.chips.router.level(0)
    bus.mmio_write(0xFF00FFF8, 8, 0x1122334455667788)
    assert bus.mmio_read(0xFF00FFFC, 4) == 0x11223344
    assert bus.mmio_read(0xFF00FFFE, 4) == 0x1122
