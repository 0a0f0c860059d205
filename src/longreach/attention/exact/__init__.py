"""Exact attention, computed in other ways."""
