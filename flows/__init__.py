"""What runs: the DAG (`curate.py`), its configuration (`config.py`) and the command line (`cli.py`)."""
