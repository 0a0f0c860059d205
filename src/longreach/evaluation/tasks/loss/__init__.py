"""How well a text is predicted."""
