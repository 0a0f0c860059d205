"""What has to be found in, or computed from, all of a long list."""
