"""What a model would take under each method, told before anything runs: bytes, and about how long."""
