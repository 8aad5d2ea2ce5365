"""What holds of Ray's and Dask's clusters alike: where their addresses stand, and what they can reach."""

from __future__ import annotations

import os
import urllib.parse
from typing import Literal

from ladm.tasks.errors import ConfigError

RunnerName = Literal["threads", "ray", "dask"]
ADDRESSES = {"ray": "RAY_ADDRESS", "dask": "DASK_SCHEDULER_ADDRESS"}
LOST_WORKERS = 3
"""Workers that one task may lose and be done again; beside `execution.retries`, which are for errors of its own.

A Dask cluster of the user's has its own bound, `distributed.scheduler.allowed-failures`, which is 3 as well.
"""


def check_reachable(name: RunnerName, prefect_url: str | None) -> None:
    """Refuse a cluster of other machines together with a Prefect server that only this machine can reach.

    Raises:
        ConfigError: One line that names the fix.
    """
    cluster = os.environ.get(ADDRESSES[name], "")
    if cluster and not _is_here(cluster) and (prefect_url is None or _is_here(prefect_url)):
        raise ConfigError(
            f"PREFECT_API_URL: the tasks on {ADDRESSES[name]}={cluster} need a Prefect server that they can reach; "
            "start one and set its address, e.g. http://prefect:4200/api"
        )


def _is_here(address: str) -> bool:
    """Whether an address, with or without a scheme, is one of this machine's own."""
    host = urllib.parse.urlsplit(address if "://" in address else f"//{address}").hostname
    return host in ("auto", "local", "localhost", "127.0.0.1", "::1")
