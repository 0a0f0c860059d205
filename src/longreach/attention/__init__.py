"""What a query sees and how strongly. One file a method."""
