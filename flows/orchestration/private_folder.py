"""Where our own Prefect servers keep their databases and logs: for the eyes of the user alone whose servers they are.

A database of theirs holds every configuration and every address of a run. A cache may be shared, may belong to another
user, or may be one that anybody can write; and files of earlier versions were made for everybody to read.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ladm.tasks.errors import ConfigError

FILES = (
    *(f"{name}.db{ending}" for name in ("prefect", "prefect-serve") for ending in ("", "-wal", "-shm")),
    *("prefect-server.log", "prefect-serve.log", "prefect-server.lock"),
)


def private_folder(cache: Path) -> Path:
    """The cache itself, where it is this user's and not for all to write; else a folder of the user's own in it.

    What lies there of ours others cannot read, nor what SQLite will make beside a database.

    Raises:
        ConfigError: What lies there is another user's.
    """
    ours = cache.stat()
    if ours.st_uid != os.geteuid() or ours.st_mode & stat.S_IWOTH:
        cache /= f"user-{os.geteuid()}"
    try:
        cache.mkdir(0o700, exist_ok=True)
        ours = cache.lstat()
        if not stat.S_ISDIR(ours.st_mode) or ours.st_uid != os.geteuid():
            raise PermissionError(None, "it is another user's, or no folder", str(cache))
        for path in (cache / name for name in FILES):
            if path.exists() and stat.S_IMODE(path.stat().st_mode) != 0o600:
                path.chmod(0o600)
    except OSError as error:
        raise ConfigError(
            f"LADM_CACHE: {str(error.filename or cache)!r} cannot be kept from others ({error.strerror}); remove it, "
            "or set LADM_CACHE to a folder of your own"
        ) from None
    return cache


def private_file(path: Path) -> Path:
    """The path of a file that is there afterwards, and that others cannot read."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    return path


def give_prefect_a_home(cache: Path) -> None:
    """Have Prefect use a folder in the cache where its own, in the user's home, cannot be made or be looked into."""
    if os.environ.get("PREFECT_HOME"):
        return
    home = Path.home() / ".prefect"
    with contextlib.suppress(OSError):
        home.mkdir(0o700, parents=True, exist_ok=True)
        if os.access(home, os.R_OK | os.X_OK):
            return
    os.environ["PREFECT_HOME"] = str(private_folder(cache) / "prefect-home")
