"""A file that stands in for another one: what reads it does something more."""

from __future__ import annotations

import io
from typing import BinaryIO


class WrappedFile(io.RawIOBase):
    """Reads and seeks as the file within does, and does not close it. Classes made from it do more while they read."""

    def __init__(self, file: BinaryIO) -> None:
        """Stand in for a file that is open for binary reading, and seekable."""
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Read as the file does."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek as the file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Say where the file is."""
        return self._file.tell()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be sought in."""
        return True
