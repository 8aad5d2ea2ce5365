"""Prefect as a guest that keeps quiet: no log noise, no analytics, no calls to the network, its own database.

Must run before `prefect` is imported. What the user has set in the environment, or a Prefect server of their own
(PREFECT_API_URL or a profile), is left as it is.
"""

from __future__ import annotations

import os
from pathlib import Path


def quiet_prefect(cache: Path) -> None:
    """Set Prefect's defaults for a run started by hand.

    Args:
        cache: A folder for the database of the server that `ladm run` starts for itself.
    """
    cache.mkdir(parents=True, exist_ok=True)
    quiet = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        # Kept apart from a Prefect of the user's own, whose version may differ.
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{cache / 'prefect.db'}",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLI_COLORS": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
