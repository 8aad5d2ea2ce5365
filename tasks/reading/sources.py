"""Listing the source files of a run, and what tells one version of a file from another.

A file's identity is (URI, size, ETag) on object stores and (path, size, mtime in ns) on disk, or the SHA-256 of
its content when `ingest.identity` is `content`. Nothing is opened here except for that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ladm.tasks.errors import SourceChangedError, SourceError
from ladm.tasks.manifest import SourceFile
from ladm.tasks.printable import printable
from ladm.tasks.reading.file_names import has_name, is_skipped
from ladm.tasks.reading.folders import files_below, is_private, matching
from ladm.tasks.reading.names import name_below, root_of
from ladm.tasks.reading.no_sources import fixed_part, is_below, stores_among, without_notes
from ladm.tasks.reading.readers import SourceConfig
from ladm.tasks.storage.file_systems import (
    file_system,
    io_errors,
    is_ours,
    is_web,
    local_path,
    local_uri,
    no_web_answer,
    opened,
    reason_of,
)

CONTENT = "sha256:"
WEB_VERSIONS = ("ETag", "Last-Modified", "Content-MD5", "Digest")
"""Headers by which a web server tells one version of a file from another."""


@dataclass(frozen=True)
class ListedFile:
    """A source file together with the `sources:` entry that says how to read it."""

    file: SourceFile
    config: SourceConfig


def list_sources(
    sources: Sequence[SourceConfig],
    identity: str = "stat",
    own: Sequence[str] = (),
    tell: Callable[[str], None] | None = None,
) -> list[ListedFile]:
    """Every file that the sources name, in the order of the sources and then by name.

    Args:
        sources: The `sources:` entries. A URI is a file, a glob, or a folder: every file below it, but for names
            that begin with `.` or `_`, which editors, version control and Spark use for their own.
        identity: `stat` or `content`.
        own: Folders of the run's own, whose files are never sources (`own_folders`).
        tell: Gets a line where files of a store were left out.

    Raises:
        SourceError: A source names no file at all, its file system cannot be reached, or a file is named twice.
    """
    listed: dict[str, ListedFile] = {}
    first: dict[str, int] = {}
    for number, source in enumerate(sources):
        field = f"sources[{number}].uri"
        for file in list_files(source, field, identity, own, tell):
            if file.uri in listed:
                raise SourceError(
                    f"{field}: {source.uri!r} names {printable(file.uri, 500)!r}, as sources[{first[file.uri]}] does; "
                    "name each file by one entry, or give the other entry a link to it under another name"
                )
            listed[file.uri], first[file.uri] = ListedFile(file, source), number
    return list(listed.values())


def check_unchanged(file: SourceFile) -> None:
    """Make sure that a file is still what the listing saw; for after it was read.

    Raises:
        SourceChangedError: It was replaced or written to since. What was read belongs to no version that can be named.
        OSError: It cannot be examined any more.
    """
    fs, path = file_system(file.uri)
    with gone_is_changed(file):
        if isinstance(fs, LocalFileSystem):
            os.lstat(path)
            now = _examined(Path(path), file.uri)
        else:
            now = _remote_file(fs, path, fs.info(path))
    if file.version.startswith(CONTENT):
        now = now.replaced(version=_content_version(now))
    if (now.size, now.version) != (file.size, file.version):
        raise SourceChangedError(
            f"{printable(file.uri, 500)}: changed while the run was reading it; run again, when nothing writes to it"
        )


@contextlib.contextmanager
def gone_is_changed(file: SourceFile) -> Iterator[None]:
    """Tell of a file that is no longer there as of one that was changed."""
    try:
        yield
    except FileNotFoundError:
        raise SourceChangedError(
            f"{printable(file.uri, 500)}: gone since the run listed it; put it back, or run again without it"
        ) from None


def list_files(
    source: SourceConfig,
    field: str,
    identity: str,
    own: Sequence[str] = (),
    tell: Callable[[str], None] | None = None,
) -> list[SourceFile]:
    """The files of one entry, by name; `field` of the configuration is named where there are none (`SourceError`)."""
    try:
        fs, path = file_system(source.uri, impatient=True)
    except (ValueError, ImportError) as error:
        raise SourceError(f"{field}: {source.uri!r} is not a path or URL that can be read ({error})") from None
    except ConnectionError as error:
        raise SourceError(f"{field}: {source.uri!r} cannot be reached ({error})") from None
    is_local = isinstance(fs, LocalFileSystem)
    if is_local and _is_stream(Path(path)):  # one in a folder is quarantined like other files
        raise SourceError(
            f"{field}: {source.uri!r} is not a regular file but a pipe, a device or a socket, and a run reads its "
            "sources more than once; write what comes from there to a file and name that (compressed files are read as "
            "they are)"
        )
    try:
        files = _list_local(Path(path), own) if is_local else _list_remote(fs, path)
    except FileNotFoundError as error:
        if is_web(fs) and (wrong := no_web_answer(error)) is not None:
            raise SourceError(f"{field}: {source.uri!r} cannot be listed: {wrong}") from None
        files = []
    except io_errors(ValueError, NotImplementedError, *([] if is_ours(fs) else [Exception])) as error:
        raise SourceError(f"{field}: {source.uri!r} cannot be listed: {reason_of(error)}{_hint(source)}") from None
    if not files:
        hint = _hint(source)
        raise SourceError(f"{field}: no file matches {source.uri!r}; give an existing file, folder or glob{hint}")
    files = _wanted(files, source, field)
    files = _sources_among(files, fixed_part(path if is_local else fs.unstrip_protocol(path)), own, source, field, tell)
    if identity == "content":
        files = [file.replaced(version=_content_version(file)) for file in files]
    return files


def _wanted(files: list[SourceFile], source: SourceConfig, field: str) -> list[SourceFile]:
    """The files that `only` and `skip` of an entry leave."""
    if source.only is not None and not (files := [file for file in files if has_name(file, source.only)]):
        raise SourceError(
            f"{field}: no file of {source.uri!r} has a name such as {', '.join(source.only)}; mend `only`"
        )
    if source.skip is not None and not (files := [file for file in files if not is_skipped(file, source.skip)]):
        raise SourceError(f"{field}: `skip` leaves no file of {source.uri!r}; mend `skip`")
    return files


def _hint(source: SourceConfig) -> str:
    """What else may be wrong where nothing is found on the Hugging Face Hub, which hides what one may not see."""
    asks = "hf://datasets/ORG/NAME[@REVISION]/path; of a private or gated repository set HF_TOKEN"
    return f" ({asks})" if source.uri.startswith("hf://") else ""


def _sources_among(
    files: list[SourceFile],
    named: str,
    own: Sequence[str],
    source: SourceConfig,
    field: str,
    tell: Callable[[str], None] | None,
) -> list[SourceFile]:
    """Files that were found, less those of a store, of the cache or of what was published."""
    apart = [*own, *stores_among(files, named)]
    kept = [file for file in files if not is_below(local_path(file.uri), apart)]
    if not kept:
        raise SourceError(
            f"{field}: all that {source.uri!r} matches is part of a store, of the cache or of what was published, "
            "which is never read as a source; copy the files to a folder of their own"
        )
    if tell and len(kept) < len(files):
        where = next(one for one in apart if any(is_below(local_path(file.uri), [one]) for file in files))
        tell(f"{field}: {len(files) - len(kept):,} files are no sources: part of {printable(where, 500)}")
    return without_notes(kept)


def _list_local(path: Path, own: Sequence[str]) -> list[SourceFile]:
    # Before globbing: a name may hold brackets.
    is_there = path.exists() or path.is_symlink()
    matches = [path] if is_there else matching(str(path), own)
    files: list[Path] = []
    for match in matches:
        if match.is_dir():
            files += files_below(match, own)
        else:
            files.append(match)
    root = root_of(str(path), ("folder" if path.is_dir() else "file") if is_there else "pattern")
    found: dict[str, SourceFile] = {}
    folders = {folder: folder.resolve() for folder in {place.parent for place in files}}
    for place in sorted(files):
        file = _examined(place, local_uri(str(folders[place.parent] / place.name)))
        file = file.replaced(name=name_below(root, str(place)))
        found.setdefault(file.uri, file)  # a folder may be reached by several ways
    return [found[uri] for uri in sorted(found, key=Path)]


def _is_stream(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder: reading it twice gives something else."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _examined(path: Path, uri: str) -> SourceFile:
    """A file on this machine as it is now, known by an address."""
    try:
        status = path.stat()
    except OSError as error:
        reason = "dangling symbolic link" if path.is_symlink() else error.strerror or "cannot be examined"
        return SourceFile(uri=uri, size=0, version="", problem=reason)
    problem = None
    if stat.S_ISDIR(status.st_mode):
        problem = "a folder that cannot be listed"
    elif not stat.S_ISREG(status.st_mode):
        problem = "no file but a device, a socket or a pipe"  # reading might never end
    elif not os.access(path, os.R_OK):
        problem = "permission denied"
    if problem:
        return SourceFile(uri=uri, size=0, version="", problem=problem)
    return SourceFile(uri=uri, size=status.st_size, version=str(status.st_mtime_ns))


def _list_remote(fs: Any, path: str) -> list[SourceFile]:
    if any(mark in path for mark in "*?[") and not fs.exists(path):
        matches: dict[str, Any] = fs.glob(path, detail=True)
        root = root_of(path, "pattern")
    else:
        matches = {path: _what_is(fs, path)}
        root = root_of(path, "folder" if matches[path]["type"] == "directory" else "file")
    files: dict[str, Any] = {}
    for match, info in matches.items():
        files |= _find_below(fs, match) if info["type"] == "directory" else {match: info}
    # An object whose name ends with a slash is how consoles make an "empty folder".
    files = {name: info for name, info in files.items() if not name.endswith("/")}
    remote = ((name, _remote_file(fs, name, info)) for name, info in sorted(files.items()))
    return [file.replaced(name=name_below(root, name)) for name, file in remote]


def _what_is(fs: Any, path: str) -> dict[str, Any]:
    """What a file system says of a path. On the web only an HTML page can list others, and is not asked for else."""
    if is_web(fs):
        info: dict[str, Any] = fs.info(path)
        if not path.endswith("/") and info.get("mimetype") != "text/html":
            return info
        return {"type": "directory"} if fs.isdir(path) else info
    return {"type": "directory"} if fs.isdir(path) else fs.info(path)


def _find_below(fs: Any, folder: str) -> dict[str, Any]:
    found = {}
    for name, info in fs.find(folder, detail=True).items():
        below = PurePosixPath(name.removeprefix(folder)).parts
        if info["type"] != "directory" and not any(is_private(part) for part in below):
            found[name] = info
    return found


def _remote_file(fs: Any, name: str, info: dict[str, Any]) -> SourceFile:
    if is_web(fs) and not any(info.get(one) for one in WEB_VERSIONS):  # a page that lists files says nothing of them
        info = fs.info(name)
    known = ("ETag", "etag", "blob_id", "mtime", "LastModified", *WEB_VERSIONS[1:])
    version = next((info[one] for one in known if info.get(one)), None)
    file = SourceFile(uri=fs.unstrip_protocol(name), size=int(info.get("size") or 0), version=str(version).strip('"'))
    if version is None:  # a web server that tells nothing: only what it sends is known
        version = _content_version(file) if is_web(fs) else fs.ukey(name)
        return file.replaced(version=str(version))
    return file


def _content_version(file: SourceFile) -> str:
    if file.problem:
        return file.version
    digest = hashlib.sha256()
    with opened(file.uri) as stream:
        while block := stream.read(2**22):
            digest.update(block)
    return f"{CONTENT}{digest.hexdigest()}"
