"""The page of devices that the guest touched last: it is asked for at each entry, so it is where that is cheap."""

from __future__ import annotations

from typing import Final

NOWHERE: Final = -1
"""No guest-physical address."""


class DevicePage:
    """`gpa` is a page that is in no memory slot, or NOWHERE."""

    def __init__(self) -> None:
        self.gpa = NOWHERE
