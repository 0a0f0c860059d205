"""Attention that places tokens anew, inside the trained window."""
