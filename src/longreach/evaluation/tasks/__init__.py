"""What is measured. One file a task."""
