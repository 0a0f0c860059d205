"""Caches that a model is trained to use."""
