"""What programs do, and which of them are wrong."""
