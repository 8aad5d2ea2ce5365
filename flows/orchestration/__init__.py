"""Prefect around the DAG: its settings and server, where tasks run, schedules, and what its UI shows."""
