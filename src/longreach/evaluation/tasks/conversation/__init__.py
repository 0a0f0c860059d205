"""Whether what was said in a long conversation is known."""
