"""The checks. Every module is one: its name is the check's, and its `check(patient)` yields findings. There is no list to add it to."""
