"""The command line. Every module here is a verb, but for `main` and those whose names start with `_`."""
