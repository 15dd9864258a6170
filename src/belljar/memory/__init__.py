"""Guest-physical memory: slots over memfd backings, checked access from the host, dirty pages."""

from belljar.memory.backing import PAGE_SIZE, HugePages
from belljar.memory.dirty import DirtyBitmap
from belljar.memory.guest import GuestMemory
from belljar.memory.region import Region

__all__ = ["PAGE_SIZE", "DirtyBitmap", "GuestMemory", "HugePages", "Region"]
