"""`ladm sql`: one query, or a shell, over the views of a run; it reads and never writes."""
