"""Attention methods that lay out the tokens of a batch."""
