"""How written answers are scored: by their words, their numbers, what they do when run, or by a judge."""
