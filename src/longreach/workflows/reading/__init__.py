"""Reading workflows, one file each."""
