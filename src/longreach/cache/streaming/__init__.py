"""A window that moves on."""
