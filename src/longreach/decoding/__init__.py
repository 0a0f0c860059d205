"""Ids in, ids out: reading in chunks, and writing."""
