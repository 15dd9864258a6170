"""VM-exit handlers, one file for each kind of exit. `table.py` says which reason goes to which.

A handler gets the vCPU; None lets the guest go on, an ExitReason ends the run with it.
"""
