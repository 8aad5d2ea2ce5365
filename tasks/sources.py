"""Listing the source files of a run, and what tells one version of a file from another.

A file's identity is (URI, size, ETag) on object stores and (path, size, mtime in ns) on disk, or the SHA-256 of
its content when `ingest.identity` is `content`. Nothing is opened here except for that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tasks.errors import SourceError
from tasks.manifest import SourceFile
from tasks.readers import SourceConfig


@dataclass(frozen=True)
class ListedFile:
    """A source file together with the `sources:` entry that says how to read it."""

    file: SourceFile
    config: SourceConfig


def list_sources(sources: Sequence[SourceConfig], identity: str = "stat") -> list[ListedFile]:
    """Every file that the sources name, each once, in the order of the sources and then by name.

    Args:
        sources: The `sources:` entries. A URI is a file, a folder (every file below it) or a glob.
        identity: `stat` or `content`.

    Raises:
        SourceError: A source names no file at all, or its file system cannot be reached.
    """
    listed: dict[str, ListedFile] = {}
    for number, source in enumerate(sources):
        for file in _list_one(source, f"sources[{number}].uri", identity):
            listed.setdefault(file.uri, ListedFile(file, source))
    return list(listed.values())


def _list_one(source: SourceConfig, field: str, identity: str) -> list[SourceFile]:
    try:
        fs, path = fsspec.core.url_to_fs(source.uri)
    except (ValueError, ImportError) as error:
        raise SourceError(f"{field}: {source.uri!r} is no path or URL that can be read ({error})") from None
    if isinstance(fs, LocalFileSystem):
        files = _list_local(Path(path))
    else:
        try:
            files = _list_remote(fs, path)
        except FileNotFoundError:
            files = []
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise SourceError(f"{field}: {source.uri!r} cannot be listed: {reason}") from None
    if not files:
        raise SourceError(f"{field}: no file matches {source.uri!r}; give an existing file, folder or glob")
    if identity == "content":
        files = [file.model_copy(update={"version": _content_version(fs, file)}) for file in files]
    return files


def _list_local(path: Path) -> list[SourceFile]:
    if path.exists() or path.is_symlink():  # before globbing: a name may hold brackets
        matches = [path]
    else:
        fs = LocalFileSystem()
        matches = [Path(str(name)) for name in fs.glob(str(path))] if fsspec.utils.get_protocol(str(path)) else []
    files: list[Path] = []
    for match in matches:
        if match.is_dir():
            files += [Path(folder) / name for folder, _, names in os.walk(match) for name in names]
        else:
            files.append(match)
    return [_local_file(file) for file in sorted(set(files))]


def _local_file(path: Path) -> SourceFile:
    uri = str(path.parent.resolve() / path.name)
    try:
        status = path.stat()
    except OSError as error:
        reason = "dangling symbolic link" if path.is_symlink() else error.strerror or "cannot be examined"
        return SourceFile(uri=uri, size=0, version="", problem=reason)
    return SourceFile(uri=uri, size=status.st_size, version=str(status.st_mtime_ns))


def _list_remote(fs: Any, path: str) -> list[SourceFile]:
    entries: dict[str, Any]
    if any(mark in path for mark in "*?[") and not fs.exists(path):
        entries = fs.glob(path, detail=True)
    elif fs.isdir(path):
        entries = fs.find(path, detail=True)
    else:
        entries = {path: fs.info(path)}
    files = []
    for name, info in sorted(entries.items()):
        if info.get("type") == "directory":
            files += _list_remote(fs, name)
            continue
        version = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or fs.ukey(name)
        files.append(SourceFile(uri=fs.unstrip_protocol(name), size=int(info["size"]), version=str(version).strip('"')))
    return files


def _content_version(fs: Any, file: SourceFile) -> str:
    if file.problem:
        return file.version
    digest = hashlib.sha256()
    with fs.open(file.uri, "rb") as stream:
        while block := stream.read(2**22):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"
