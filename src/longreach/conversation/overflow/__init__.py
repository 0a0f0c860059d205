"""What happens to a conversation that is longer than its window. Every module is a policy: its name is what `--overflow` takes."""
