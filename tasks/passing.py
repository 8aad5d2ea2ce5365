"""Which errors may pass by themselves, so that trying again is worth it."""

from __future__ import annotations

import builtins
import re
import sys

import duckdb

from ladm.tasks.storage.file_systems import io_errors

NEVER_PASSES = (ValueError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Of the errors of storage, those that trying again cannot mend: what is not there, or not ours, or no address."""
NO_ROOM = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED|can't start new thread", re.IGNORECASE)
"""What a `RuntimeError` says that may pass."""


def can_pass(error: object) -> bool:
    """Whether trying again may mend an error: of storage, of the network, or for want of memory.

    Nothing else: a user's mistake and our own bug are the same the next time, and what is damaged another job has to
    make again.
    """
    if type(error) is duckdb.Error:  # of a file system in Python that DuckDB reads through: the error's name and words
        named = getattr(builtins, (name := str(error).partition(":")[0]), None)
        if isinstance(named, type):
            return issubclass(named, (OSError, MemoryError)) and not issubclass(named, NEVER_PASSES)
        return name.isidentifier()  # a library's own, which such a file system raises of its storage
    if isinstance(error, RuntimeError):
        torch = sys.modules.get("torch")  # not loaded: then it raised nothing either
        return bool(torch and isinstance(error, torch.OutOfMemoryError)) or bool(NO_ROOM.search(str(error)))
    passing = io_errors(MemoryError, duckdb.IOException, duckdb.OutOfMemoryException)
    return isinstance(error, passing) and not isinstance(error, NEVER_PASSES)
