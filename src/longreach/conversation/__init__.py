"""Conversations: many turns with one model, of which nothing is left out silently."""
