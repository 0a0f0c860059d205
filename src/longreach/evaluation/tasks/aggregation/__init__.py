"""Whether much of a text is taken in at once."""
