"""Whether a rule is learnt from what is read."""
