"""Writing workflows, one file each."""
