"""Rotary frequencies, scaled by a formula."""
