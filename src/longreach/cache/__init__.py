"""What is kept of the past. One file a method."""
