"""Finds the method that makes a model reach a length, and fits methods that need it."""
