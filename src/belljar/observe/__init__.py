"""Looking in: traces, reports, walks and explanations. Everything here reads a machine and never changes it."""
