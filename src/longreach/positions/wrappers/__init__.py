"""What changes the frequencies of another method."""
