"""Encoder-decoders that read beyond the window of their encoder."""
