"""Caches that keep everything in fewer bytes."""
