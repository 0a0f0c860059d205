"""Measures how far a model reaches: tasks, rows of results, intervals and the usable length."""
