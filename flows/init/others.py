"""What lies in a source tree and is not its own: installed packages, vendored code, virtual environments."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from ladm.flows.init.kinds import DOCUMENTS, OF_EXTENSION, extension_of
from ladm.tasks.manifest import SourceFile
from ladm.tasks.reading.file_names import has_name, is_skipped

SOURCE_TREE = 0.2
"""Share of code among text files from which on they are a source tree."""
FOLDERS = (
    *("node_modules", "bower_components", "jspm_packages", "site-packages", "dist-packages", "Pods", "Carthage"),
    *("vendor", "vendored", "third_party", "third-party", "thirdparty", "3rdparty", "3rd_party"),
)
"""Names of folders that hold others' code."""
FILES = ("*.min.js", "*.min.css")
"""Names of files that are made from others."""
MARKS = {"pyvenv.cfg", "CACHEDIR.TAG"}
"""Files by which a folder shows itself to be a virtual environment, or to hold what can be made again."""


def is_source_tree(files: Sequence[SourceFile]) -> bool:
    """Whether code is a part, and no small one, of the files that are texts."""
    languages = [OF_EXTENSION[one] for file in files if (one := extension_of(file.uri)[0]) in OF_EXTENSION]
    return sum(language not in DOCUMENTS for language in languages) > SOURCE_TREE * len(languages)


def others_in(files: Sequence[SourceFile]) -> list[str]:
    """Patterns, as `sources[].skip` takes them, of what is not a source tree's own. None where that would be all."""
    names = {name for file in files for name in file.known_as.split("/")}
    ways = [file.known_as.rpartition("/") for file in files]
    found = [one for one in FOLDERS if one in names]
    found += [one for one in FILES if fnmatch.filter(names, one)]
    found += sorted({f"{folder}/*" for folder, _, name in ways if folder and name in MARKS})
    return [] if all(is_skipped(file, found) for file in files) else found


def first_skipping(file: SourceFile, patterns: Sequence[str]) -> str | None:
    """The first of some patterns that leaves a file out; None where none does."""
    return next((one for one in patterns if is_skipped(file, [one])), None)


def files_of(uri: str, place: str, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Of the files of a place, those below a folder in it."""
    below = _below(uri, place)
    return [file for file in files if not below or file.known_as.startswith(f"{below}/")]


def needed(
    patterns: Sequence[str], uri: str, only: Sequence[str] | None, place: str, files: Sequence[SourceFile]
) -> list[str]:
    """Of patterns, with paths below a place, those that an entry needs, with paths below its own folder.

    Args:
        patterns: As `others_in` gives them.
        uri: What the entry names in the place.
        only: The names that it takes.
        place: What was looked at.
        files: All that the place holds.
    """
    read = [one for one in files_of(uri, place, files) if only is None or has_name(one, only)]
    below = _below(uri, place)
    found = [one for one in patterns if any(is_skipped(file, [one]) for file in read)]
    return [one.removeprefix(f"{below}/") if below else one for one in found]


def _below(uri: str, place: str) -> str:
    """The folder of an entry below the place that was looked at; empty for the place itself."""
    return uri[len(place.rstrip("/")) :].strip("/")
