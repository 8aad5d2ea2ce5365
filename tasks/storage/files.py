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
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile

from ladm.tasks.errors import ConfigError
from ladm.tasks.storage.file_systems import file_system, is_s3

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

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        """Write all of the bytes."""
        self._hash.update(data)
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


@dataclass(frozen=True)
class StoredFile:
    """A file of the store as a listing shows it."""

    path: str
    bytes: int
    modified: float
    """Seconds since 1970."""
    inode: int | None = None
    """The same for all hard links to one file; None where there are none."""


class Files:
    """All files below `uri`, e.g. `./ladm-store` or `s3://bucket/prefix`. Paths are below it, without a slash in front.

    Raises:
        ConfigError: On an object store, a prefix that fsspec's requests for many objects would take for a pattern.
    """

    def __init__(self, uri: str, impatient: bool = False) -> None:
        self.uri = uri
        self.fs, root = file_system(uri, impatient)
        self.local = isinstance(self.fs, LocalFileSystem)
        self.root = str(Path(root).resolve()) if self.local else root.rstrip("/")
        if not self.local and any(mark in self.root for mark in "*?["):
            raise ConfigError(f"store: {uri!r} holds *, ? or [, which would match other objects; give another prefix")
        self.written: dict[str, tuple[int, str]] = {}
        """path → bytes and sha256 of every file that was written through this object."""

    def full(self, path: str) -> str:
        """The path below the root as the file system names it."""
        return f"{self.root}/{path}"

    def url(self, path: str) -> str:
        """The path below the root as DuckDB and people name it, protocol included."""
        return self.full(path) if self.local else str(self.fs.unstrip_protocol(self.full(path)))

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
                with opened as file:
                    yield (hashing := HashingFile(file))
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
            yield (hashing := HashingFile(file))
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
        return cast(bytes, self.fs.cat_file(self.full(path), end=end))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        """The contents of files, asked for together; None of one that cannot be read."""
        if not paths:
            return []
        found = self.fs.cat([self.full(path) for path in paths], on_error="return")
        contents = found if isinstance(found, dict) else {self.full(paths[0]): found}
        read = {name.lstrip("/"): content for name, content in contents.items() if isinstance(content, bytes)}
        return [read.get(self.full(path).lstrip("/")) for path in paths]

    def size(self, path: str) -> int | None:
        """Bytes of a file, or None if there is no such file."""
        if self.local:  # fsspec's info() costs ten times a stat
            try:
                status = Path(self.full(path)).stat()
            except OSError:
                return None
            return status.st_size
        try:
            return int(self.fs.info(self.full(path))["size"])
        except FileNotFoundError:
            return None

    def names(self, path: str) -> list[str]:
        """Names of the entries directly below `path`, sorted; empty if there is no such folder."""
        try:
            entries = self.fs.ls(self.full(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def files(self, folder: str) -> list[StoredFile]:
        """Every file below a folder, at any depth, sorted by path; empty if there is no such folder."""
        listing = self._walk_local(folder) if self.local else self._walk_remote(folder)
        return sorted(listing, key=lambda file: file.path)

    def states(self, folder: str) -> Iterator[tuple[str, int, str]]:
        """Path, bytes and state of every file below a folder, in no order; nothing if there is no such folder.

        The state differs whenever the file was written again; it is empty where the file system does not tell.
        """
        if self.local:
            yield from self._states_local(self.full(folder), folder)
            return
        try:
            found = self.fs.find(self.full(folder), detail=True)
        except FileNotFoundError:
            return
        for name, info in found.items():
            if info["type"] != "directory" and not name.endswith("/"):
                told = [info.get(one) for one in ("ETag", "LastModified", "created", "mtime")]
                state = " ".join(str(one) for one in told if one)
                yield name.removeprefix(self.root).lstrip("/"), int(info["size"]), state

    def _states_local(self, place: str, folder: str) -> Iterator[tuple[str, int, str]]:
        try:
            entries = os.scandir(place)
        except (FileNotFoundError, NotADirectoryError):
            return
        with entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from self._states_local(entry.path, path)
                    continue
                with contextlib.suppress(FileNotFoundError):  # moved to its final name meanwhile
                    status = entry.stat(follow_symlinks=False)
                    yield path, status.st_size, f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"

    def _walk_local(self, folder: str) -> Iterator[StoredFile]:
        for parent, _, names in os.walk(self.full(folder)):
            for name in names:
                path = Path(parent) / name
                with contextlib.suppress(FileNotFoundError):  # moved to its final name meanwhile
                    status = path.lstat()
                    relative = path.relative_to(self.root).as_posix()
                    yield StoredFile(relative, status.st_size, status.st_mtime, status.st_ino)

    def _walk_remote(self, folder: str) -> Iterator[StoredFile]:
        try:
            found = self.fs.find(self.full(folder), detail=True)
        except FileNotFoundError:
            return
        for name, info in found.items():
            if info["type"] == "directory" or name.endswith("/"):
                continue
            modified = info.get("LastModified") or info.get("created") or info.get("mtime")
            if isinstance(modified, datetime):
                modified = modified.timestamp()
            relative = name.removeprefix(self.root).lstrip("/")
            yield StoredFile(relative, int(info["size"]), float(modified or time.time()))

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
            self.fs.copy(self.full(path), self.full(to))
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
