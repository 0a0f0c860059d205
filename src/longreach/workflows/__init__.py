"""Workflows: many calls of a chat model, to read or write more than its window holds."""
