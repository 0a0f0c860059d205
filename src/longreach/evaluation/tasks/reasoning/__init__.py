"""Whether facts are understood and joined, wherever they stand."""
