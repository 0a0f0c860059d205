"""Whether a fact is found."""
