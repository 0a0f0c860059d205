"""Rotary frequencies that differ from head to head."""
