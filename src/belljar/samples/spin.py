"""The shortest endless loop: only the host can end it."""

from belljar.samples.sample import Line, Sample

LISTING = (Line("eb fe", "jmp short 0x1000", label="here"),)

SAMPLE = Sample("spin", "loops for ever: see what --timeout and Ctrl-C do", "real", LISTING)
