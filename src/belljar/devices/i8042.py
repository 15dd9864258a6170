"""The keyboard controller of a PC (Intel 8042 as in the IBM PC/AT Technical Reference) with a keyboard: ports 0x60, 0x64.

No mouse: what is sent to the second port is lost, as with nothing plugged in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

DATA_PORT, COMMAND_PORT = 0x60, 0x64

STATUS_OUTPUT_FULL, STATUS_SYSTEM, STATUS_COMMAND, STATUS_UNLOCKED = 0x01, 0x04, 0x08, 0x10

CCB_INTERRUPT, CCB_SYSTEM, CCB_KEYBOARD_OFF, CCB_MOUSE_OFF, CCB_TRANSLATE = 0x01, 0x04, 0x10, 0x20, 0x40
CCB_START = CCB_INTERRUPT | CCB_SYSTEM | CCB_MOUSE_OFF | CCB_TRANSLATE
"""The controller command byte as firmware leaves it."""

(
    READ_CCB, WRITE_CCB, MOUSE_OFF, MOUSE_ON, TEST_MOUSE, SELF_TEST, TEST_KEYBOARD, KEYBOARD_OFF, KEYBOARD_ON,
    READ_INPUT, READ_OUTPUT, WRITE_OUTPUT, WRITE_KEYBOARD_BUFFER, WRITE_MOUSE_BUFFER, WRITE_MOUSE, A20_OFF, A20_ON,
) = (
    0x20, 0x60, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE,
    0xC0, 0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xDD, 0xDF,
)  # fmt: skip
"""Commands on port 0x64."""
PULSE_OUTPUT = 0xF0
"""Commands 0xF0 to 0xFF lower those of the lowest four output bits that are 0; bit 0 is the processor's reset."""

SELF_TEST_PASSED, TEST_PASSED, TEST_FAILED = 0x55, 0x00, 0x01
OUTPUT_NOT_RESET, OUTPUT_A20, OUTPUT_FULL = 0x01, 0x02, 0x10
INPUT_UNLOCKED = 0x80

ACK, RESEND, ECHO, BAT_PASSED = 0xFA, 0xFE, 0xEE, 0xAA
KEYBOARD_ID = (0xAB, 0x83)
KBD_LEDS, KBD_ECHO, KBD_SCANCODE_SET, KBD_IDENTIFY, KBD_RATE, KBD_ENABLE, KBD_DISABLE, KBD_DEFAULTS, KBD_RESEND, KBD_RESET = (
    0xED, 0xEE, 0xF0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xFE, 0xFF,
)  # fmt: skip
"""Commands to the keyboard."""

TRANSLATED = {0x01: 0x43, 0x02: 0x41, 0x03: 0x3F, 0x83: 0x41}
"""What the controller's translation makes of a keyboard's answers (PS/2 Technical Reference, "Scan Code Translation")."""

QUEUE_SIZE = 16
"""A keyboard's buffer; more keys are lost."""


class KeyboardController:
    """The controller. `line` follows IRQ 1, `reset` restarts the machine, `a20` is told the gate's new state."""

    port_width = 1

    def __init__(
        self,
        reset: Callable[[], None],
        *,
        line: Callable[[bool], object] = lambda level: None,
        a20: Callable[[bool], None] = lambda enabled: None,
    ) -> None:
        self.ports = range(DATA_PORT, DATA_PORT + 1)
        self.command_port = _CommandPort(self)
        self._reset = reset
        self._line = line
        self._set_a20 = a20
        self._queue: deque[int] = deque()
        self._ccb = CCB_START
        self._output = OUTPUT_NOT_RESET | OUTPUT_A20
        self._command = 0
        self._was_command = False
        self._keyboard_command = 0
        self._scanning = True
        self._scancode_set = 2
        self._last = 0
        self._level = False

    def devices(self) -> tuple[object, ...]:
        """Everything to attach to a bus: ports 0x60 and 0x64, between which others lie."""
        return self, self.command_port

    def type_scancodes(self, codes: bytes) -> int:
        """Keys were pressed or released: set 1 codes, as guests read them with translation on. How many fit the buffer."""
        if not self._scanning or self._ccb & CCB_KEYBOARD_OFF:
            return 0
        kept = codes[: QUEUE_SIZE - len(self._queue)]
        self._queue.extend(kept)
        self._follow()
        return len(kept)

    def port_read(self, port: int, size: int) -> int:
        """The next byte for the processor; the last one again if there is none."""
        if self._queue:
            self._last = self._queue.popleft()
            if self._level:
                self._level = False
                self._line(False)
        self._follow()
        return self._last

    def port_write(self, port: int, size: int, value: int) -> None:
        """A command's argument, or a byte for the keyboard."""
        command, self._command = self._command, 0
        self._was_command = False
        if command == WRITE_CCB:
            self._ccb = value
        elif WRITE_CCB < command < WRITE_CCB + 0x20 or command in (WRITE_MOUSE, WRITE_MOUSE_BUFFER):
            return
        elif command == WRITE_OUTPUT:
            self._write_output(value)
        elif command == WRITE_KEYBOARD_BUFFER:
            self._answer(value)
        else:
            self._ccb &= ~CCB_KEYBOARD_OFF  # talking to the keyboard enables it
            self._tell_keyboard(value)
        self._follow()

    def read_status(self) -> int:
        """Port 0x64: the input buffer is always empty, for bytes are taken at once."""
        status = STATUS_UNLOCKED | self._ccb & STATUS_SYSTEM | (STATUS_COMMAND if self._was_command else 0)
        return status | (STATUS_OUTPUT_FULL if self._queue else 0)

    def write_command(self, value: int) -> None:
        """Port 0x64."""
        self._was_command = True
        self._command = 0
        if value >= PULSE_OUTPUT:
            if not value & OUTPUT_NOT_RESET:
                self._reset()
        elif value == READ_CCB:
            self._answer(self._ccb)
        elif value == SELF_TEST:
            self._ccb |= CCB_SYSTEM
            self._queue.clear()
            self._answer(SELF_TEST_PASSED)
        elif value in (TEST_KEYBOARD, TEST_MOUSE):
            self._answer(TEST_PASSED if value == TEST_KEYBOARD else TEST_FAILED)
        elif value in (KEYBOARD_OFF, KEYBOARD_ON):
            self._ccb = self._ccb & ~CCB_KEYBOARD_OFF | (CCB_KEYBOARD_OFF if value == KEYBOARD_OFF else 0)
        elif value in (MOUSE_OFF, MOUSE_ON):
            self._ccb = self._ccb & ~CCB_MOUSE_OFF | (CCB_MOUSE_OFF if value == MOUSE_OFF else 0)
        elif value == READ_INPUT:
            self._answer(INPUT_UNLOCKED)
        elif value == READ_OUTPUT:
            self._answer(self._output | (OUTPUT_FULL if self._queue else 0))
        elif value in (A20_OFF, A20_ON):
            self._write_output(self._output & ~OUTPUT_A20 | (OUTPUT_A20 if value == A20_ON else 0))
        elif WRITE_CCB <= value < WRITE_CCB + 0x20 or WRITE_OUTPUT <= value <= WRITE_MOUSE:
            self._command = value
        self._follow()

    def _write_output(self, value: int) -> None:
        changed = self._output ^ value
        self._output = value & ~OUTPUT_FULL | OUTPUT_NOT_RESET
        if changed & OUTPUT_A20:
            self._set_a20(bool(value & OUTPUT_A20))
        if not value & OUTPUT_NOT_RESET:
            self._reset()

    def _answer(self, *values: int) -> None:
        for value in values:
            if len(self._queue) < QUEUE_SIZE:
                self._queue.append(value)

    def _say(self, *values: int) -> None:
        """The keyboard's answer, on its way through the controller."""
        translate = self._ccb & CCB_TRANSLATE
        self._answer(*(TRANSLATED.get(value, value) if translate else value for value in values))

    def _tell_keyboard(self, value: int) -> None:
        command, self._keyboard_command = self._keyboard_command, 0
        if command == KBD_SCANCODE_SET:
            self._say(ACK)
            if value:
                self._scancode_set = value if value <= 3 else self._scancode_set
            else:
                self._say(self._scancode_set)
        elif command:
            self._say(ACK)
        elif value in (KBD_LEDS, KBD_RATE, KBD_SCANCODE_SET):
            self._keyboard_command = value
            self._say(ACK)
        elif value == KBD_ECHO:
            self._say(ECHO)
        elif value == KBD_IDENTIFY:
            self._say(ACK, *KEYBOARD_ID)
        elif value in (KBD_ENABLE, KBD_DISABLE, KBD_DEFAULTS):
            self._scanning = value != KBD_DISABLE
            self._queue.clear()
            self._say(ACK)
        elif value == KBD_RESEND:
            self._answer(self._last)
        elif value == KBD_RESET:
            self._scanning, self._scancode_set = True, 2
            self._queue.clear()
            self._say(ACK, BAT_PASSED)
        else:
            self._say(RESEND)

    def _follow(self) -> None:
        level = bool(self._queue) and bool(self._ccb & CCB_INTERRUPT)
        if level != self._level:
            self._level = level
            self._line(level)

    def state(self) -> dict[str, Any]:
        """Registers and what waits to be read."""
        return {
            "queue": list(self._queue),
            "ccb": self._ccb,
            "output": self._output,
            "command": self._command,
            "was_command": int(self._was_command),
            "keyboard_command": self._keyboard_command,
            "scanning": int(self._scanning),
            "scancode_set": self._scancode_set,
            "last": self._last,
            "level": int(self._level),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._queue = deque(state["queue"])
        self._ccb, self._output, self._command = state["ccb"], state["output"], state["command"]
        self._was_command, self._keyboard_command = bool(state["was_command"]), state["keyboard_command"]
        self._scanning, self._scancode_set = bool(state["scanning"]), state["scancode_set"]
        self._last, self._level = state["last"], bool(state["level"])


class _CommandPort:
    """Port 0x64 of the controller."""

    ports = range(COMMAND_PORT, COMMAND_PORT + 1)
    port_width = 1

    def __init__(self, controller: KeyboardController) -> None:
        self._controller = controller

    def port_read(self, port: int, size: int) -> int:
        """As `belljar.devices.bus.PortDevice`."""
        return self._controller.read_status()

    def port_write(self, port: int, size: int, value: int) -> None:
        """As `belljar.devices.bus.PortDevice`."""
        self._controller.write_command(value)
