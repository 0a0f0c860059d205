"""Attention whose logits get something added: biases, ages, fading, a prefix."""
