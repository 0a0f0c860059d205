"""Benchmarks whose data is in files, which are read as their authors publish them."""
