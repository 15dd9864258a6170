"""Devices on the port and memory buses: one a file. They see a bus, memory and a line; never an engine."""
