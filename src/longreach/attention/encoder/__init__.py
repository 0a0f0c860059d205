"""Encoders' attention."""
