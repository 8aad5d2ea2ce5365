"""The one place that touches files: those below a folder or an object-store prefix, through fsspec.

A file is written whole or not at all: on disk under a temporary name and then moved, on object stores by an upload
that is abandoned on error.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from fsspec.spec import AbstractBufferedFile

from ladm.tasks.storage.file_systems import is_s3, naming
from ladm.tasks.storage.listing import Listing

REMOVE_AT_ONCE = 1000

_unfinished: set[Path] = set()
_beginning = threading.RLock()
"""Held while a temporary file comes to be. Not even a moment lies between its being noted and its being there."""


def remove_unfinished() -> None:
    """Delete the temporary files of writes that are under way; for a process that is about to end at once.

    No other write begins from here on: whoever wants to begin one waits for the end.
    """
    _beginning.acquire()
    for temporary in list(_unfinished):
        temporary.unlink(missing_ok=True)


class HashingFile(io.RawIOBase):
    """A file being written, in order, that knows the number of bytes and the sha256 of what it got."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        super().__init__()
        self._file = file
        self._name = name
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        """Write all of the bytes."""
        self._hash.update(data)
        with naming(self._name):
            self._file.write(data)
        written = memoryview(data).nbytes
        self.bytes += written
        return written

    def writable(self) -> bool:
        """It is for writing only."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    @property
    def sha256(self) -> str:
        """Of all bytes written so far, in hex."""
        return self._hash.hexdigest()


class Files(Listing):
    """All files below `uri`, to be read and written."""

    def __init__(self, uri: str, impatient: bool = False) -> None:
        super().__init__(uri, impatient)
        self.written: dict[str, tuple[int, str]] = {}
        """path → bytes and sha256 of every file that was written through this object."""

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[HashingFile]:
        """Open `path` for writing; it appears whole when the block ends, and not at all if it raises."""
        target = self.full(path)
        if self.local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(f"{target}.{uuid.uuid4().hex}.tmp")
            try:
                with _beginning:
                    _unfinished.add(temporary)
                    opened = temporary.open("wb")
                try:
                    yield (hashing := HashingFile(opened, target))
                    with naming(target):
                        opened.close()
                except BaseException:
                    with contextlib.suppress(OSError):  # the same error again, for what was not yet written
                        opened.close()
                    raise
                temporary.replace(target)
                self.written[path] = hashing.bytes, hashing.sha256
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            finally:
                _unfinished.discard(temporary)
            return
        file = self.fs.open(target, "wb")
        try:
            yield (hashing := HashingFile(file, self.full(path)))
        except BaseException:
            # Closing would complete the upload: an object store must never show half a file.
            with contextlib.suppress(Exception):
                file.discard()
            if isinstance(file, AbstractBufferedFile):
                file.closed = True
            raise
        file.close()
        self.written[path] = hashing.bytes, hashing.sha256

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a small file whole."""
        with self.writing(path) as file:
            file.write(content)

    def read_bytes(self, path: str, end: int | None = None) -> bytes:
        """The content of a file, all or the first `end` bytes; `FileNotFoundError` if there is none."""
        # Of S3 that is two requests, the first for its size. To ask for one (`max_concurrency=1`) would have s3fs try
        # again around its own trying again, and a server that is gone be waited for half an hour.
        return cast(bytes, self.fs.cat_file(self.full(path), end=end))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        """The contents of files, asked for together; None of one that cannot be read."""
        if not paths:
            return []
        found = self.fs.cat([self.full(path) for path in paths], on_error="return")
        contents = found if isinstance(found, dict) else {self.full(paths[0]): found}
        read = {name.lstrip("/"): content for name, content in contents.items() if isinstance(content, bytes)}
        return [read.get(self.full(path).lstrip("/")) for path in paths]

    def remove(self, path: str) -> None:
        """Delete a file; no error if there is none."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.full(path))

    def remove_all(self, paths: Sequence[str]) -> None:
        """Delete files in the order given, many a request where the file system can."""
        if not is_s3(self.uri):
            for path in paths:
                self.remove(path)
            return
        for start in range(0, len(paths), REMOVE_AT_ONCE):
            self.fs.rm([self.full(path) for path in paths[start : start + REMOVE_AT_ONCE]])

    def remove_empty_folders(self, folder: str) -> None:
        """Delete a folder that holds no file, and the empty ones in it; object stores have none."""
        if not self.local:
            return
        for parent, _, _ in os.walk(self.full(folder), topdown=False):
            with contextlib.suppress(OSError):  # not empty, or gone
                Path(parent).rmdir()

    def publish(self, path: str, to: str) -> None:
        """Make the file `path` also appear as `to`: a hard link on disk, a server-side copy elsewhere."""
        if not self.local:
            self.fs.cp_file(self.full(path), self.full(to))
            return
        source, target = Path(self.full(path)), Path(self.full(to))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            target.unlink()
            os.link(source, target)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)
