"""Caches that keep everything out of the way, and bring back what is needed."""
