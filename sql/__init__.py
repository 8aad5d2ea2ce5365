"""The SQL that ranks, selects and presents the data, one statement a file, run by DuckDB."""
