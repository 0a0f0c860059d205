"""What decides how far a model looks: heads, biases, receptive fields."""
