"""Choosing source files by their names: what `only` and `skip` of an entry of `sources` mean."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from ladm.tasks.manifest import SourceFile


def has_name(file: SourceFile, patterns: Sequence[str]) -> bool:
    """Whether a file's own name matches one of some patterns."""
    name = file.uri.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(name, one) for one in patterns)


def is_skipped(file: SourceFile, patterns: Sequence[str]) -> bool:
    """Whether the name or path of a file, or of a folder that it lies in, matches one of some patterns."""
    names = file.known_as.split("/")
    paths = ["/".join(names[: number + 1]) for number in range(len(names))]
    return any(fnmatch.fnmatchcase(tried, one) for one in patterns for tried in (paths if "/" in one else names))
