"""A source file that reports, while it is read, how many of its bytes were (`progress.py`)."""

from __future__ import annotations

from typing import BinaryIO

from ladm.tasks import progress
from ladm.tasks.reading.records import UnreadableFile
from ladm.tasks.reading.wrapped import WrappedFile

REPORTED_BYTES = 2**20


class ReportedFile(WrappedFile):
    """Reports the bytes that are read of a file, up to a total, some at a time. It does not close the file."""

    def __init__(self, file: BinaryIO, stage: str, total: int) -> None:
        """Report a stage's reading of a file.

        Args:
            file: Open for binary reading, seekable.
            stage: Its name.
            total: Bytes that count in all; what is read twice counts once.
        """
        super().__init__(file)
        self._stage, self._total = stage, total
        self._read = self._told = 0

    def read(self, size: int = -1) -> bytes:
        """Read as the file does."""
        data = super().read(size)
        self._read = min(self._total, self._read + len(data))
        if self._read - self._told >= REPORTED_BYTES:
            self._report(self._read)
        return data

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Report that it is done with; of a read that failed, which may be tried again, that nothing was read."""
        done = kind is None or issubclass(kind, UnreadableFile)
        self._report(self._total if done else 0)

    def _report(self, read: int) -> None:
        if read != self._told:
            progress.report(self._stage, read - self._told)
        self._told = read
