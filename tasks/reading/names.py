"""What source files are called by their documents: a name that does not depend on where the corpus lies.

The name is the file's path below the *root* of its entry of `sources`: the folder, or the part of a glob before its
first wildcard, or the folder that a single file lies in; on a disk, in a bucket or on the web alike. Ids of documents,
and with them the keys of all that is made of documents, are made of names: a corpus that was moved, mounted elsewhere
or uploaded is read again, and nothing after that is done again.

A file that the store has met before keeps the name that it had then, so that an entry may be written another way, and
what stores of ladm 0.1 made, whose names were whole addresses, stays good. Of two files of one name, in two entries,
the second is told apart by a number.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from ladm.tasks.manifest import SourceFile
from ladm.tasks.storage.file_systems import local_uri


def root_of(path: str, kind: Literal["file", "folder", "pattern"]) -> str:
    """The folder below which the files of an entry have their names.

    Args:
        path: The entry's path on its file system, with its wildcards, if any.
        kind: What the path is.
    """
    if kind == "folder":
        return path.rstrip("/")
    parts = path.split("/")
    magic = [number for number, part in enumerate(parts) if any(mark in part for mark in "*?[")]
    return "/".join(parts[: magic[0] if kind == "pattern" and magic else -1])


def name_below(root: str, path: str) -> str:
    """The name of a file below a root; one that is no UTF-8 is escaped (`local_uri`)."""
    name = os.path.normpath(path.removeprefix(root).lstrip("/"))
    escaped = local_uri(f"/{name}")
    return name if escaped == f"/{name}" else escaped


def named(files: Sequence[SourceFile], known: Iterable[SourceFile] = ()) -> list[SourceFile]:
    """The files, each with a name of its own.

    Args:
        files: With the names that they have below their roots.
        known: Files as earlier runs of the store knew them, the newest run's first.

    Returns:
        The files in their order. One that is known by its address keeps its name; one that is not takes the name of a
        known file that is no longer where it was, if it has the size and the end of the path of that one alone.
    """
    by_uri: dict[str, SourceFile] = {}
    for one in known:
        by_uri.setdefault(one.uri, one)
    found: dict[str, str] = {}
    taken: set[str] = set()

    def take(file: SourceFile, name: str) -> None:
        if name not in taken:
            found[file.uri] = name
            taken.add(name)

    for file in files:
        if file.uri in by_uri:
            take(file, by_uri[file.uri].known_as)
    here = {file.uri for file in files}
    gone = defaultdict[tuple[str, int], list[SourceFile]](list)
    for one in by_uri.values():
        if one.uri not in here and one.known_as not in taken:
            gone[_last_part(one.uri), one.size].append(one)
    new = [file for file in files if file.uri not in found]
    for file in new:
        if earlier := _moved_from(file, gone[_last_part(file.uri), file.size]):
            take(file, earlier.known_as)
    for file in new:
        number, name = 2, file.known_as
        while file.uri not in found:
            take(file, name)
            number, name = number + 1, f"{file.known_as}#{number}"
    return [file.replaced(name=found[file.uri]) for file in files]


def unsure(files: Sequence[SourceFile], known: Iterable[SourceFile]) -> list[SourceFile]:
    """Of named files, those that may be ones of earlier runs that lay elsewhere: it cannot be told which."""
    here, taken = {file.uri for file in files}, {file.known_as for file in files}
    earlier = list(known)
    met = {one.uri for one in earlier}
    lost = {(_last_part(one.uri), one.size) for one in earlier if one.uri not in here and one.known_as not in taken}
    return [file for file in files if file.uri not in met and (_last_part(file.uri), file.size) in lost]


def _moved_from(file: SourceFile, gone: Sequence[SourceFile]) -> SourceFile | None:
    """Of files that are gone, the one whose path ends most like that of a new one; None where none does, or several."""
    own = len(file.known_as.split("/"))
    alike = [(_common_end(one.uri, file.uri), one) for one in gone]
    most = max((parts for parts, _ in alike), default=0)
    best = [one for parts, one in alike if parts == most]
    return best[0] if len(best) == 1 and most >= own else None


def _common_end(one: str, other: str) -> int:
    """How many parts two paths have in common at their ends."""
    common = 0
    for left, right in zip(reversed(one.split("/")), reversed(other.split("/")), strict=False):
        if left != right:
            break
        common += 1
    return common


def _last_part(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
