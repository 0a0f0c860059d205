"""Texts of a given length, what is asked of them, and who answers: a model in this process or an endpoint."""
