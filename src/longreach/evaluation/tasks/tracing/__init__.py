"""Whether facts are joined that stand far apart."""
