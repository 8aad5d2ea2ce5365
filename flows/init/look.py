"""A look at somebody's data: the files, the entries that read them, lengths, and the choice of settings."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladm.flows.init.choice import Choice, choice_of
from ladm.flows.init.entries import Found, entries_of
from ladm.flows.init.kinds import DATA, OF_EXTENSION, extension_of
from ladm.flows.init.lengths import Measured, measured
from ladm.tasks.errors import ConfigError, SourceError
from ladm.tasks.manifest import SourceFile
from ladm.tasks.places import expanded
from ladm.tasks.printable import printable
from ladm.tasks.reading.folders import private_below
from ladm.tasks.reading.no_sources import own_folders
from ladm.tasks.reading.records import SourceConfig
from ladm.tasks.reading.sources import list_files
from ladm.tasks.redact import checked_uri
from ladm.tasks.storage.file_systems import reason_of


@dataclass(frozen=True)
class Look:
    """What was found, and what is chosen."""

    place: str
    files: list[SourceFile]
    found: Found
    measured: Measured
    choice: Choice

    def settings(self, store: str) -> dict[str, Any]:
        """The configuration, as values."""
        budget = self.choice.budget
        return {
            "store": store,
            "sources": [entry.as_settings() for entry in self.found.entries],
            "window": {"length": self.choice.length, "take": "first"},
            "scorer": {"model": "embedded", "span": self.choice.span},
            **({"select": {"budget_tokens": budget}} if budget else {}),
            "export": [{"format": "parquet"}, {"format": "jsonl.zst"}],
        }


def look_at(place: str, store: str) -> Look:
    """Look at some data.

    Args:
        place: A folder, a file, a glob, or a URL.
        store: The store that a run would have; what lies in it is no data.

    Raises:
        UserError: There is nothing there that can be read as text.
    """
    try:
        place = checked_uri(expanded(place))
    except ValueError as error:
        raise ConfigError(f"PATH: {error}") from None
    if not place.strip():
        raise ConfigError("PATH: no name; give a folder, a file, a glob or a URL")
    try:
        own = own_folders(store, ("latest", "runs", "records", "ingest", "export", "quarantine"))
        files = list_files(SourceConfig(uri=place), "PATH", "stat", own)
    except SourceError as error:
        raise SourceError(reason_of(error)) from None
    found = entries_of(place, files)
    folder = Path(place)
    if "://" not in place and folder.is_dir():
        found.hidden = sorted({one.name for one in private_below(folder)})
    if not found.entries:
        why = ", ".join(f"{number:,} {reason}" for reason, number in found.left_out.most_common(5))
        raise SourceError(
            f"PATH: nothing in {printable(place, 300)!r} can be read as text ({printable(why, 300) or 'no file'}); "
            "give jsonl, Parquet, Arrow or text files"
        )
    lengths = measured(found.entries, found.tree)
    return Look(place, files, found, lengths, choice_of(lengths))


def is_data(argument: str) -> bool:
    """Whether what stands in the place of a configuration is data: a folder, a pattern, a URL, or a file of records."""
    path = Path(os.path.expanduser(argument))  # noqa: PTH111  (of `~nobody` a Path would make an error)
    if "://" in argument or argument.endswith("/") or path.is_dir():
        return True
    if not path.exists() and glob.has_magic(argument):
        return True
    extension = extension_of(argument)[0]
    return path.is_file() and extension != "json" and (extension in DATA or extension in OF_EXTENSION)
