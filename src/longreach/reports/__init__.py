"""Pages, charts and tables, drawn from rows."""
