"""What the place of files, their folders and names, says of what is in them."""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Sequence

from ladm.flows.init.kinds import ending_of
from ladm.tasks.manifest import SourceFile

MOST_PARTS = 60
"""Folders, or files, that are looked at one by one."""
A_DOCUMENT_EACH = 8
"""So many folders that hold hardly more than a file each are named after documents, and not after domains."""
SPLITS = {"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval", "data", "default"}
"""Names of folders and files that say nothing of what is in them."""
_OF_A_PARTITION = re.compile(r"[A-Za-z_]\w*=(.+)")
"""A folder's name as Hive and Spark write it: `language=de`."""
_NUMBERED = re.compile(r"[-_.]?(?:part|shard|train|validation|test|of|data|chunk)?[-_.]?\d+", re.IGNORECASE)


def parts_of(files: Sequence[SourceFile]) -> dict[str, list[SourceFile]]:
    """Files by the folder that they lie in, or by their names less numbers; all together where these are too many."""
    for names in (_folders(files), {file.uri: stem_of(file) for file in files}):
        if 1 < len(set(names.values())) <= MOST_PARTS:
            parts: dict[str, list[SourceFile]] = defaultdict(list)
            for file in files:
                parts[names[file.uri]].append(file)
            return dict(parts)
    return {stem_of(files[0]): list(files)}


def stem_of(file: SourceFile) -> str:
    """A file's name without its ending and its numbers."""
    base = file.uri.rsplit("/", 1)[-1]
    stem = base[: len(base) - len(ending_of(base))]
    bare = _NUMBERED.sub("", stem).strip("-_. ")
    return "" if bare.lower() in SPLITS else bare


def name_of(place: str, files: Sequence[SourceFile]) -> str:
    """What the records of a place are called where nothing in them tells."""
    if len(files) == 1 and (stem := stem_of(files[0])):
        return stem
    parts = [part for part in place.rstrip("/").split("/") if part.strip(".") and not glob.has_magic(part)]
    return parts[-1] if parts and len(parts) > ("://" in place) * 2 - 1 else stem_of(files[0]) or "documents"


def by_folder(place: str, files: Sequence[SourceFile]) -> dict[str, list[SourceFile]]:
    """Files by the folder in the place that they lie in."""
    folders = _folders(files)
    number = len(set(folders.values()))
    whole = name_of(place, files)
    if (number > MOST_PARTS // 2 and len(files) < 5 * number) or _are_documents(set(folders.values()), len(files)):
        return {whole: list(files)}  # a folder for each document says nothing of its domain
    parts: dict[str, list[SourceFile]] = defaultdict(list)
    for file in files:
        parts[bare(folders[file.uri]) or whole].append(file)
    return dict(parts)


def _are_documents(folders: set[str], files: int) -> bool:
    """Whether folders are named after the one document that each holds: there are many, or numbers are their names."""
    numbers = sum(sum(map(str.isdigit, name)) > len(name) / 2 for name in folders)
    return len(folders) > 1 and files < 2 * len(folders) and (len(folders) > A_DOCUMENT_EACH or numbers > 1)


def common_folder(files: Sequence[SourceFile], named: bool = False) -> str:
    """The deepest folder that all files lie in: its address, or with `named` its name below the place."""
    common, *others = [(file.known_as if named else file.uri).split("/")[:-1] for file in files]
    for way in others:
        same = [one == other for one, other in zip(common, way, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return "/".join(common)


def bare(folder: str) -> str:
    """A folder's name, and of a partition's its value."""
    return match[1] if (match := _OF_A_PARTITION.fullmatch(folder)) else folder


def _folders(files: Sequence[SourceFile]) -> dict[str, str]:
    """Address → the first folder in which files part; empty for a file that lies in none."""
    ways = {file.uri: (file.name or file.uri).split("/")[:-1] for file in files}
    while len({way[0] if way else "" for way in ways.values()}) == 1 and all(ways.values()):
        ways = {uri: way[1:] for uri, way in ways.items()}
    return {uri: way[0] if way and way[0].lower() not in SPLITS else "" for uri, way in ways.items()}
