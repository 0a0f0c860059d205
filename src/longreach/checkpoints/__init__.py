"""Loads, saves and exports checkpoints; `nano`, the model that comes with longreach."""
