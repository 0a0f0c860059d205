"""Rotary frequencies that are found for each model."""
