"""The database of the Prefect servers that runs start for themselves: deleted where no server has it open.

Nothing in it is needed, since a store's records are the truth; the next run's server makes a new one. A server of the
user's own, and that of `ladm serve`, which keeps schedules, have databases of their own and are left alone.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ladm.flows.orchestration.private_folder import private_folder
from ladm.flows.orchestration.server_process import alone

DATABASE = "prefect.db"


def prune_database(cache: Path, dry_run: bool = False) -> int:
    """Delete the database in a cache, unless a server has it open, or it cannot be told whether one has.

    Returns:
        Bytes that this frees, or would free.
    """
    if not cache.is_dir():
        return 0
    cache = private_folder(cache)
    files = [path for ending in ("", "-wal", "-shm") if (path := cache / f"{DATABASE}{ending}").is_file()]
    if not files:
        return 0
    with alone(str(cache / "prefect-server.lock")):  # no server comes up meanwhile
        if _may_be_open(set(map(str, (path.resolve() for path in files)))):
            return 0
        freed = sum(path.stat().st_size for path in files)
        for path in () if dry_run else files:
            path.unlink(missing_ok=True)
    return freed


def _may_be_open(paths: set[str]) -> bool:
    """Whether any process of this machine has one of the files open; true where that cannot be found out."""
    processes = Path("/proc")
    if not (processes / "self" / "fd").is_dir():
        return True
    for process in processes.iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended, or is another user's
            for opened in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(opened.readlink()) in paths:
                        return True
    return False
