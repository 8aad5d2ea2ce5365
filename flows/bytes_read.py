"""How much of the source files was read so far, in a line of text now and then: a sign of life of large ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

EVERY_SECONDS = 20.0
"""Between two lines."""


class BytesRead:
    """Counts the stored bytes of source files: those that are to be read, and those that were."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Say now and then how much was read."""
        self._say = say
        self._lock = threading.Lock()
        self._told = time.monotonic()
        self.expected = self.read = 0

    def expect(self, size: int) -> None:
        """So many more bytes are to be read."""
        with self._lock:
            if self.read == self.expected:
                self._told = time.monotonic()
            self.expected += size

    def advance(self, size: int) -> None:
        """So many more bytes were read; fewer, where a job that failed is tried again."""
        with self._lock:
            self.read += size
            now = time.monotonic()
            if now - self._told < EVERY_SECONDS:
                return
            self._told = now
            line = f"{'ingest':<9} reading {self.read / 1e6:,.0f} of {self.expected / 1e6:,.0f} MB"
        self._say(line)
