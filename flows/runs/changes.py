"""What a refresh found changed: the source files of a run against those of the store's previous completed run.

A file is *changed* when its documents are, or how many of its records are quarantined; one that merely has a new date
counts as unchanged, as it does for every stage after ingestion. Documents are those that ingestion kept, windows those
that were scored (of a run that ends earlier: those that were cut).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ladm.flows.runs.packed import counted_stage
from ladm.flows.runs.stored_rows import jobs_of

CHANGES = ("added", "changed", "removed", "unchanged")


@dataclass
class FileMade:
    """What one run made of one source file."""

    uri: str = ""
    identity: list[tuple[int, str]] = field(default_factory=list)
    content: list[str] | None = None
    """Keys of its document shards, or the hash of its documents where it was read together with others, and the number
    of quarantined records; None if it was not ingested."""
    packed: bool = False
    """Whether it was read together with others."""
    documents: int = 0
    windows: int = 0


def difference(
    previous: Mapping[str, Any], current: Mapping[str, Any], before: Mapping[str, FileMade] | None = None
) -> dict[str, Any]:
    """What changed between two runs, from their records (`run.json`) alone.

    Args:
        previous: The record of a completed run.
        current: The record of a later run. Of shards that failed in it, nothing is counted.
        before: `files_of` the earlier one, where it is known already.

    Returns:
        `previous`, the earlier run's id, and for each of `added`, `changed`, `removed` and `unchanged` the number of
        `files`, `documents` and `windows`: of the current run, but of the previous one for what was removed. Of
        changed files also `documents_before` and `windows_before`; of all but the unchanged ones also their `uris`.
    """
    before, now = files_of(previous) if before is None else before, files_of(current)
    found: dict[str, Any] = {"previous": previous["run_id"]}
    for change, names in _by_change(before, now).items():
        there = before if change == "removed" else now
        found[change] = _total(there, names)
        if change == "changed":
            found[change] |= {f"{name}_before": number for name, number in _total(before, names).items()}
            del found[change]["files_before"]
        if change != "unchanged":
            found[change]["uris"] = [there[name].uri for name in names]
    return found


def changed_files(previous: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, list[str]]:
    """The URIs of the files that were added, changed and removed between two runs, from their records."""
    before, now = files_of(previous), files_of(current)
    of = _by_change(before, now)
    return {
        change: [(before if change == "removed" else now)[name].uri for name in names]
        for change, names in of.items()
        if change != "unchanged"
    }


def lost_more_than(limit: float, refresh: Mapping[str, Any]) -> str | None:
    """What is gone, in one line, if it is more than a share of the previous run's files or of its documents.

    Documents count as gone with their files, and where changed files hold fewer of them in all.
    """
    removed, changed, same = refresh["removed"], refresh["changed"], refresh["unchanged"]
    fewer = max(0, changed.get("documents_before", 0) - changed["documents"])
    shares = [
        ("files", removed["files"], removed["files"] + changed["files"] + same["files"]),
        (
            "documents",
            removed["documents"] + fewer,
            removed["documents"] + changed.get("documents_before", 0) + same["documents"],
        ),
    ]
    for what, gone, before in shares:
        if gone > limit * before:
            return (
                f"{gone:,} of the {before:,} {what} of run {refresh['previous']} are gone, more than max_removed "
                f"({limit:g}) allows{_named(removed['uris'] or changed['uris'])}; bring them back (a mount, a prefix), "
                "or run once with --set max_removed=1 if they are meant to be gone"
            )
    return None


def _named(uris: Sequence[str]) -> str:
    """The first few of the files, in words."""
    more = f" and {len(uris) - 3:,} more" if len(uris) > 3 else ""
    return f": {', '.join(uris[:3])}{more}" if uris else ""


def in_words(refresh: Mapping[str, Any]) -> str:
    """A difference in one line."""
    parts = []
    for change in CHANGES:
        counts = refresh[change]
        was = ""
        if change == "changed" and counts["files"]:
            was = f"; before: {counts['documents_before']:,} and {counts['windows_before']:,}"
        inside = f" ({counts['documents']:,} documents, {counts['windows']:,} windows{was})" if counts["files"] else ""
        parts.append(f"{counts['files']:,} {change}{inside}")
    return f"files since run {refresh['previous']}: {', '.join(parts)}"


def files_of(record: Mapping[str, Any]) -> dict[str, FileMade]:
    """Name → what the run made of the file, in a form that can be compared. A file that was moved keeps its name."""
    files: dict[str, FileMade] = defaultdict(FileMade)
    names: dict[str, str] = {}
    groups = set()
    for one in record["sources"]:
        name = names[one["uri"]] = one.get("name") or one["uri"]
        file = files[name]
        file.uri = one["uri"]
        file.identity.append((one["size"], one["version"]))
        if one.get("group"):  # read together with others: its jobs tell nothing of it alone
            groups.add(one["group"])
            file.packed = True
            file.content = [one["content"], f"{one['quarantined']} quarantined"]
            file.documents, file.windows = one["documents"], one["windows"]
    reading = jobs_of(record, "ingest") if groups else ()
    packed = {job["source"] for job in reading if job["key"] in groups}
    for job in jobs_of(record, "ingest"):
        source: str = job["source"]
        if source not in packed:
            file = files[names.get(source, source)]
            shards = [shard["key"] for shard in job["shards"]]
            file.content = [*(file.content or []), *shards, f"{job['quarantined']} quarantined"]
            file.documents += job["kept"]
    counted = counted_stage(record["stages"])
    for job in jobs_of(record, counted):
        source = job["source"]
        if source not in packed:
            files[names.get(source, source)].windows += job["kept"] if counted == "score" else job["windows"]
    return files


def _by_change(before: Mapping[str, FileMade], now: Mapping[str, FileMade]) -> dict[str, list[str]]:
    """Each of `CHANGES`, and the names of its files; this alone decides what counts as a change."""
    of: dict[str, list[str]] = {change: [] for change in CHANGES}
    for name in sorted(before.keys() | now.keys()):
        of[_change(before.get(name), now.get(name))].append(name)
    return of


def _change(before: FileMade | None, now: FileMade | None) -> str:
    if before is None:
        return "added"
    if now is None:
        return "removed"
    if before.content is not None and now.content is not None and before.packed == now.packed:
        return "unchanged" if before.content == now.content else "changed"
    return "unchanged" if before.identity == now.identity else "changed"


def _total(files: Mapping[str, FileMade], uris: Iterable[str]) -> dict[str, int]:
    listed = [files[uri] for uri in uris]
    return {
        "files": len(listed),
        "documents": sum(file.documents for file in listed),
        "windows": sum(file.windows for file in listed),
    }
