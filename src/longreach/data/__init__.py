"""Where text comes from: files, the running Python's standard library, and synthetic recall exercises."""
