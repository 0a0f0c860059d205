"""Checkpoints, families and the engine that applies methods to loaded models."""
