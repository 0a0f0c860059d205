"""Whether it is known what follows what."""
