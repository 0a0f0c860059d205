"""What a checkpoint says about its positions, and what is true. `checks` holds one file a check."""
