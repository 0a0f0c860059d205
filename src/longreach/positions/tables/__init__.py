"""Tables of learned positions, lengthened."""
