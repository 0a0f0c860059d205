"""Where tokens sit: scalings of the rotary frequencies, and longer tables of learned positions. One file a method."""
