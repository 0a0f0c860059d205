"""Compares two systems by annotated preferences, with and without what length does to them."""
