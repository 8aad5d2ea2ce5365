"""What lies below a folder or an object-store prefix: names, sizes and states of files, asked for in few requests."""

from __future__ import annotations

import contextlib
import os
import posixpath
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ladm.tasks.errors import ConfigError
from ladm.tasks.storage.file_systems import file_system

LISTED_FROM = 4
"""So many files in one folder of an object store are asked for by a listing, not one by one."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the store as a listing shows it."""

    path: str
    bytes: int
    modified: float
    """Seconds since 1970."""
    inode: int | None = None
    """The same for all hard links to one file; None where there are none."""


class Listing:
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

    def full(self, path: str) -> str:
        """The path below the root as the file system names it."""
        return f"{self.root}/{path}"

    def url(self, path: str) -> str:
        """The path below the root as DuckDB and people name it, protocol included."""
        return self.full(path) if self.local else str(self.fs.unstrip_protocol(self.full(path)))

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
        for name, info in self._find(folder).items():
            yield name.removeprefix(self.root).lstrip("/"), int(info["size"]), _state(info)

    def states_of(self, paths: Sequence[str]) -> dict[str, tuple[int, str] | None]:
        """Path → bytes and state of each file as it is now; None if there is no such file.

        What an object store says of the content itself, the ETag, is the whole state where it is given. Many files in
        one folder are asked for by a listing.
        """
        if self.local:
            return {path: self._state_local(path) for path in paths}
        found: dict[str, tuple[int, str] | None] = {}
        for _, some in groupby(sorted(paths), key=lambda path: path.split("/", 1)[0]):
            together = list(some)
            if len(together) < LISTED_FROM:
                found |= {path: self._state_remote(path) for path in together}
            else:
                there = {path: (size, state) for path, size, state in self._told_of(posixpath.commonpath(together))}
                found |= {path: there.get(path) for path in together}
        return found

    def _state_local(self, path: str) -> tuple[int, str] | None:
        try:
            status = Path(self.full(path)).stat()
        except OSError:
            return None
        return status.st_size, f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"

    def _state_remote(self, path: str) -> tuple[int, str] | None:
        try:
            info = self.fs.info(self.full(path))
        except FileNotFoundError:
            return None
        return int(info["size"]), _content_state(info)

    def _told_of(self, folder: str) -> Iterator[tuple[str, int, str]]:
        """Path, bytes and what is told of the content of every file below a folder of an object store."""
        for name, info in self._find(folder).items():
            yield name.removeprefix(self.root).lstrip("/"), int(info["size"]), _content_state(info)

    def _find(self, folder: str) -> dict[str, Any]:
        """What an object store says of every file below a folder; nothing if there is no such folder."""
        try:
            found: dict[str, Any] = self.fs.find(self.full(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {name: info for name, info in found.items() if info["type"] != "directory" and not name.endswith("/")}

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
        for name, info in self._find(folder).items():
            modified = info.get("LastModified") or info.get("created") or info.get("mtime")
            if isinstance(modified, datetime):
                modified = modified.timestamp()
            relative = name.removeprefix(self.root).lstrip("/")
            yield StoredFile(relative, int(info["size"]), float(modified or time.time()))


def _state(info: dict[str, Any]) -> str:
    """What an object store tells that differs whenever a file was written again; empty if nothing."""
    told = [info.get(one) for one in ("ETag", "LastModified", "created", "mtime")]
    return " ".join(str(one) for one in told if one)


def _content_state(info: dict[str, Any]) -> str:
    """What an object store tells of a file's content, or if it tells nothing of it, of its writing."""
    return str(info.get("ETag") or _state(info))
