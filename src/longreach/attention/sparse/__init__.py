"""Attention to a chosen part of the text."""
