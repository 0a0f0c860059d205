"""Replacements of softmax attention whose cost grows with the text as the text does."""
