"""Caches that keep some tokens and drop others, by what they got to be worth."""
