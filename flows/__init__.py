"""What runs: the DAG (`dag/`), its configuration (`config.py`) and the command line (`cli.py`)."""
