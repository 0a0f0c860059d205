"""Attention whose logits are multiplied."""
