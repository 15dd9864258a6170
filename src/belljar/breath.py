"""What compiled code has to do now and then that interpreted code does by itself."""


def breathe() -> None:
    """Python serves signals, and lets other threads have their turn, when an interpreted function is called: this one."""
