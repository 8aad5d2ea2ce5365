"""What each stage of the DAG does, one module a stage, as plain functions of their inputs and config.

The data goes ingest → length → tokenize → score → rank → export. `stage.py` turns a plain function into a
Prefect task, `manifest.py` is what travels between tasks, `storage/` touches files.
"""
