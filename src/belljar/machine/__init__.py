"""A machine: memory, vCPUs, buses and devices on an engine, and the run loop."""

from belljar.machine.config import MachineConfig
from belljar.machine.cpu import Cpu
from belljar.machine.machine import Machine
from belljar.machine.result import End, RunResult

__all__ = ["Cpu", "End", "Machine", "MachineConfig", "RunResult"]
