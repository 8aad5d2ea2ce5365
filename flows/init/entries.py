"""The entries of `sources` that read somebody's files: which files each names, its text, and its domain."""

from __future__ import annotations

import glob
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ladm.flows.init.fields import TEXTS, domain_field, text_field
from ladm.flows.init.kinds import (
    DATA,
    DOCUMENTS,
    OF_EXTENSION,
    PROSE,
    TABLES,
    ending_of,
    extension_of,
    is_text,
)
from ladm.flows.init.others import files_of, first_skipping, is_source_tree, needed, others_in
from ladm.flows.init.places import bare, by_folder, common_folder, name_of, parts_of, stem_of
from ladm.flows.init.sample import Sample, sample_of, spread
from ladm.tasks.manifest import SourceFile
from ladm.tasks.reading.file_names import has_name
from ladm.tasks.reading.names import root_of

MOST_SCRIPTS = 10
"""Files of code beside data that may be there to load it; where there are more, they are data too."""
NOTES = {"readme", "license", "licence", "sources", "notice", "changelog", "contributing", "datasheet", "dataset_card"}
"""Names of texts about data, which are no data."""
NOTES_IN_JSON = {"dataset_info", "dataset_infos", "dataset_dict", "state", "metadata", "manifest", "package", "config"}
"""Names of JSON files about data."""


@dataclass
class Entry:
    """An entry of `sources`, and what it was made from."""

    uri: str
    files: list[SourceFile]
    domain: str
    """A dotted path, or the domain itself."""
    is_constant: bool
    format: str = "auto"
    only: list[str] | None = None
    text: str = ""
    values: Counter[str] = field(default_factory=Counter)
    """Of a domain that is a field: its values in the sample."""
    sample: Sample | None = None
    """Records that were looked at; None for files that are a document each."""
    unread: int = 0
    """Files, of those looked into, that are damaged or hold no record."""
    skip: list[str] | None = None
    """Names and paths below `uri` that are left out."""

    def as_settings(self) -> dict[str, Any]:
        """The entry as the configuration has it."""
        settings: dict[str, Any] = {"uri": self.uri}
        settings |= {"only": self.only} if self.only else {}
        settings |= {"skip": self.skip} if self.skip else {}
        settings |= {"text": self.text} if self.text and self.text != "text" else {}
        settings |= {"format": self.format} if self.format != "auto" else {}
        return {**settings, "domain": {"const": self.domain} if self.is_constant else self.domain}


@dataclass
class Found:
    """What was found in a place."""

    place: str
    entries: list[Entry] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Why, and which ending → files."""
    hidden: list[str] = field(default_factory=list)
    """Names of files and folders that begin with `.` or `_`, which are not read."""
    tree: bool = False
    """Whether it is a source tree."""


def entries_of(place: str, files: Sequence[SourceFile]) -> Found:
    """Sort files into entries.

    Args:
        place: The folder, file, glob or URL, as the user gave it.
        files: All that it names.
    """
    found = Found(place, tree=is_source_tree(files))
    skip = others_in(files) if found.tree else []
    own = []
    for file in files:
        if why := first_skipping(file, skip):
            found.left_out[f"not the tree's own: {why}"] += 1
        else:
            own.append(file)
    _sort_into_entries(found, own)
    for entry in found.entries:
        entry.skip = needed(skip, entry.uri, entry.only, place, files) or None
    return found


def _sort_into_entries(found: Found, files: Sequence[SourceFile]) -> None:
    place = found.place
    data: dict[str, list[SourceFile]] = defaultdict(list)
    texts: dict[str, list[SourceFile]] = defaultdict(list)
    others: dict[str, list[SourceFile]] = defaultdict(list)
    for file in files:
        extension = extension_of(file.uri)[0]
        if extension in DATA:
            data[DATA[extension]].append(file)
        elif extension in OF_EXTENSION:
            texts[OF_EXTENSION[extension]].append(file)
        else:
            others[extension].append(file)
    one_file = len(files) == 1 and not place.endswith("/")
    for kind, some in sorted(data.items()):
        found.entries += _of_data(found, kind, some, files, one_file)
    if not texts and not found.entries:  # whatever else is text
        for extension, some in others.items():
            if extension not in TABLES and all(map(is_text, spread(some, 3))):
                texts[extension or PROSE] += some
        others = {name: some for name, some in others.items() if not texts.keys() & {name or PROSE}}
    found.entries += _of_texts(found, texts, files, one_file)
    for extension, some in others.items():
        if extension in TABLES:
            found.left_out[f"a table, which would have to be Parquet or JSON lines: .{extension}"] += len(some)
            continue
        found.left_out[f"no known format: {'.' + extension if extension else 'no extension'}"] += len(some)


# -- files of many records -----------------------------------------------------------------------------------------


def _of_data(
    found: Found, kind: str, some: list[SourceFile], files: Sequence[SourceFile], one_file: bool
) -> list[Entry]:
    """The entries of one format. Parts with the same fields make one entry; what has no domain goes by its place."""
    made: list[Entry] = []
    place_name = name_of(found.place, some)
    looks: list[tuple[str, list[SourceFile], str, Sample]] = []
    untold: list[tuple[list[SourceFile], Sample]] = []
    for name, part in parts_of(some).items():
        sample = sample_of(part, kind)
        if (text := text_field(sample.records)) is None:
            untold.append((part, sample))
        elif not _is_note(part, sample, text, files):
            looks.append((name, part, text, sample))
        else:
            found.left_out["a note beside the data"] += len(part)
    together: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _, _, text, sample in looks:
        together[text] += sample.records
    of_all = {text: domain_field(records, text) for text, records in together.items()}
    for name, part, text, sample in looks:
        # A field that all files have comes before one that tells the records of a single file apart.
        domain = of_all[text] or domain_field(sample.records, text)
        path, values = (domain.path, Counter[str]()) if domain else (bare(name) or place_name, Counter[str]())
        made.append(Entry(found.place, part, path, domain is None, "auto", None, text, values, sample))
    groups: dict[tuple[str, str, bool], list[Entry]] = defaultdict(list)
    for entry in made:
        groups[entry.text, entry.domain, entry.is_constant].append(entry)
    merged = [_merged(group) for group in groups.values()]
    _account_for(untold, merged, found)
    for entry in merged:
        if not entry.is_constant and entry.sample and (chosen := domain_field(entry.sample.records, entry.text)):
            entry.values = chosen.values
    if len(merged) == 1 and merged[0].is_constant:
        merged[0].domain = place_name
    return [one for entry in merged for one in _named(entry, found.place, files, one_file)]


def _is_note(part: Sequence[SourceFile], sample: Sample, text: str, files: Sequence[SourceFile]) -> bool:
    """Whether JSON files beside others say something of these: a single record, in which nothing is called a text."""
    if len(part) == len(files) or not _are_json(part):
        return False
    named = all(file.uri.rsplit("/", 1)[-1].split(".")[0].lower() in NOTES_IN_JSON for file in part)
    single = len(part) == len(sample.records) == 1
    return named or (single and text.rsplit(".", 1)[-1].lower() not in TEXTS)


def _are_json(files: Sequence[SourceFile]) -> bool:
    """Whether files are called `.json`, as settings and descriptions are."""
    return all(ending_of(file.uri).lower() == ".json" for file in files)


def _account_for(untold: Sequence[tuple[list[SourceFile], Sample]], entries: Sequence[Entry], found: Found) -> None:
    """What becomes of files that tell nothing of their records.

    Damaged and empty ones go with the largest entry, so that a run names them, and reads them once they are mended.
    """
    for part, sample in untold:
        if entries and not sample.records and not _are_json(part):
            largest = max(entries, key=lambda entry: len(entry.files))
            largest.files = [*largest.files, *part]
            largest.unread += len(part)
            continue
        why = "no record"
        if sample.records:
            fields = ", ".join(dict.fromkeys(name for record in sample.records[:20] for name in record))
            why = f"no field with a text (there are: {fields[:80]})"
        elif sample.reasons:
            why = sample.reasons[0]
        found.left_out[f"{why}: {ending_of(part[0].uri)}"] += len(part)


def _merged(entries: Sequence[Entry]) -> Entry:
    """Several entries that read alike, as one."""
    first = entries[0]
    samples = [entry.sample for entry in entries if entry.sample]
    sizes = [sum(file.size for file in entry.files) for entry in entries]
    together = Sample(
        [record for sample in samples for record in sample.records],
        [name for sample in samples for name in sample.files],
        sum(size * sample.share for size, sample in zip(sizes, samples, strict=True)) / max(1, sum(sizes)),
        [reason for sample in samples for reason in sample.reasons],
    )
    first.unread = len(together.reasons)
    first.files = [file for entry in entries for file in entry.files]
    first.sample = together
    return first


# -- files that are a document each --------------------------------------------------------------------------------


def _of_texts(
    found: Found, texts: Mapping[str, list[SourceFile]], files: Sequence[SourceFile], one_file: bool
) -> list[Entry]:
    if beside := _beside_the_data(found, texts):
        found.left_out["a note or script beside the data"] += len(beside)
        texts = {language: [file for file in some if file.uri not in beside] for language, some in texts.items()}
    every = [file for some in texts.values() for file in some]
    if not every:
        return []
    parts = dict(sorted(texts.items())) if found.tree else by_folder(found.place, every)
    made = [Entry(found.place, some, name, True, "text") for name, some in parts.items()]
    return [one for entry in made for one in _named(entry, found.place, files, one_file, found.tree)]


def _beside_the_data(found: Found, texts: Mapping[str, list[SourceFile]]) -> set[str]:
    """Addresses of texts that say something of data, or load it, and are no data themselves."""
    every = [file for some in texts.values() for file in some]
    notes = {file.uri for file in every if stem_of(file).lower() in NOTES}
    if not found.entries:  # texts are the data: what is said of them lies above all of them
        above = common_folder(every) if notes else ""
        is_above = all((file.uri.rpartition("/")[0] == above) == (file.uri in notes) for file in every)
        return notes if is_above and not found.tree else set()
    code = {file.uri for language, some in texts.items() if language not in DOCUMENTS for file in some}
    size = sum(file.size for file in every if file.uri in code)
    if len(code) <= MOST_SCRIPTS and size * 10 < sum(file.size for entry in found.entries for file in entry.files):
        found.tree = False
        return notes | code
    return set() if found.tree else notes


# -- naming the files of an entry ----------------------------------------------------------------------------------


def _named(
    entry: Entry, place: str, files: Sequence[SourceFile], one_file: bool, by_ending: bool = False
) -> list[Entry]:
    """The entry with `uri` and `only` that name its files and no others; an entry a file where these cannot."""
    own = {file.uri for file in entry.files}
    if len(own) == len(files):
        return [entry]
    for uri, only in _ways(entry, place, by_ending) if not one_file else []:
        inside = files_of(uri, place, files)
        if {file.uri for file in inside if _matches(file, only)} == own:
            return [replace(entry, uri=uri, only=only)]
    names = sorted({glob.escape(file.uri.rsplit("/", 1)[-1]) for file in entry.files})
    if {file.uri for file in files if _matches(file, names)} == own:
        return [replace(entry, only=names)]
    root = root_of(place, "pattern") if glob.has_magic(place) else place.rstrip("/")
    return [
        replace(
            entry, uri=f"{root}/{file.name}" if root else str(file.name), files=[file], only=None, sample=entry.sample
        )
        for file in entry.files
    ]


def _ways(entry: Entry, place: str, by_ending: bool) -> Iterable[tuple[str, list[str] | None]]:
    """Ways to name files, the plainest first."""
    common = [part for part in common_folder(entry.files, named=True).split("/") if part]
    endings = sorted({f"*{glob.escape(ending_of(file.uri))}" for file in entry.files if ending_of(file.uri)})
    if glob.has_magic(place):
        yield place, endings or None
        return
    if by_ending and endings:
        yield place.rstrip("/"), endings
    for only in (None, endings or None):
        for deep in range(len(common) + 1):
            yield "/".join([place.rstrip("/"), *common[:deep]]), only


def _matches(file: SourceFile, only: Sequence[str] | None) -> bool:
    return only is None or has_name(file, only)
