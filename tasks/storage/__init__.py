"""The store: the one place that touches its files, and DuckDB over them."""
