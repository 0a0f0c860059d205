"""Whether a document is understood."""
