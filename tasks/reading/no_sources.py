"""Files that a listing finds and that are no sources: of a store, of the cache, published, or notes of `datasets`.

A store, or a published selection, inside a folder of sources would otherwise be read by the next run, and what was
selected be selected once more.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ladm.tasks.manifest import SourceFile
from ladm.tasks.models.cache import cache_root
from ladm.tasks.publishing.folder import published_places
from ladm.tasks.storage.file_systems import io_errors, local_path
from ladm.tasks.storage.files import Files

OF_A_STORE = re.compile(r"(.+?)/(?:ingest/[0-9a-f]{2}/[0-9a-f]{64}\.parquet|records/[0-9a-f]{2}/[0-9a-f]{64}\.json)")
"""A file by which a folder shows itself to be a store."""
OF_SAVE_TO_DISK = {"dataset_info.json", "state.json"}
"""What `Dataset.save_to_disk` writes beside its Arrow files."""


def own_folders(store: str, folders: Iterable[str], published: str | None = None) -> list[str]:
    """Where this run's own files lie, as listings name them.

    Args:
        store: The run's store.
        folders: The names of its folders.
        published: The folder that the run publishes to, on disk or on S3, if any.

    Returns:
        The folders of the store, the cache, and what was published before.
    """
    found = [str(cache_root().resolve())]
    unreached = io_errors(ValueError, ImportError)  # is told of where it is tried
    with contextlib.suppress(*unreached):
        root = Files(store).url("").rstrip("/")
        found += [f"{root}/{folder}" for folder in folders]
    if published:
        with contextlib.suppress(*unreached):
            found += published_places(published)
    return found


def stores_among(files: Iterable[SourceFile], named: str) -> set[str]:
    """The folders among files that are stores, but for one that an entry (`named`) itself leads into."""
    found = {match[1] for file in files if (match := OF_A_STORE.fullmatch(local_path(file.uri)))}
    return {root for root in found if not is_below(named, [root])}


def is_below(path: str, folders: Iterable[str]) -> bool:
    """Whether a path is one of some folders or lies in one."""
    return f"{path}/".startswith(tuple(f"{folder}/" for folder in folders))


def without_notes(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Files, less the JSON files that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write beside their data."""
    inside: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.uri.rpartition("/")
        inside.setdefault(folder, set()).add(name)
    saved = {
        folder
        for folder, names in inside.items()
        if names >= OF_SAVE_TO_DISK and any(name.endswith(".arrow") for name in names)
    }
    notes = {f"{folder}/{name}" for folder in saved for name in OF_SAVE_TO_DISK}
    notes |= {f"{folder.rpartition('/')[0]}/dataset_dict.json" for folder in saved}
    return [file for file in files if file.uri not in notes]


def fixed_part(path: str) -> str:
    """The folder that a path or pattern surely leads into."""
    parts = path.split("/")
    magic = next((number for number, part in enumerate(parts) if any(mark in part for mark in "*?[")), len(parts))
    fixed = "/".join(parts[:magic]) or "/"
    return str(Path(fixed).resolve()) if fixed.startswith("/") else fixed
