"""Runs methods on unmodified transformers models, and undoes it."""
