"""A scorer, a filter and an exporter for ladm: a module each, and a line each in `pyproject.toml`."""
