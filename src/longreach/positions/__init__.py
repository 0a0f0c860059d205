"""Where tokens sit: scalings of the rotary frequencies. One file a method."""
