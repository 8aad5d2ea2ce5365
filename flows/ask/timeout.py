"""How long a query of `ladm sql` may take."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from ladm.tasks.errors import ConfigError, QueryError

TIMEOUT_SECONDS = 600.0
"""How long one query may take when not said otherwise."""
MOST_SECONDS = 1e7


def checked_timeout(seconds: float) -> float:
    """The seconds of `--timeout`.

    Raises:
        ConfigError: They are none.
    """
    if not 0 < seconds <= MOST_SECONDS:
        raise ConfigError(f"--timeout: {seconds:g} is out of range; give seconds above 0, up to {MOST_SECONDS:.0f}")
    return seconds


@contextlib.contextmanager
def interrupted_after(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """End what the connection does within the block after so many seconds.

    Raises:
        QueryError: It was ended; the line names the option.
    """
    done = threading.Event()
    late = time.monotonic() + seconds

    def watch() -> None:
        done.wait(seconds)
        while not done.wait(0.1):  # again and again: what comes before a query begins is forgotten
            connection.interrupt()

    watcher = threading.Thread(target=watch, name="ladm-sql-timeout", daemon=True)
    watcher.start()
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # Arrow has words of its own for what it reads
        if time.monotonic() < late or "interrupt" not in str(error).lower():
            raise
        raise QueryError(f"the query was ended after {seconds:g} s; --timeout gives it more") from None
    finally:
        done.set()
        watcher.join()
