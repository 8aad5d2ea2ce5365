"""Configurations as others may see them: without the paths of the machine that they were used on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SOMEWHERE = "/path/to"
"""Stands for the folder of something that lies on a machine."""
_LOCAL = re.compile(r"(?:file:/*|/|~|\.\./|[A-Za-z]:\\)[^\n]*")


def without_local_paths(value: Any) -> Any:
    """A value with every text in it that is an absolute path, or leads out of the working folder, cut to its end."""
    match value:
        case dict():
            return {name: without_local_paths(one) for name, one in value.items()}
        case list() | tuple():
            return [without_local_paths(one) for one in value]
        case str() if _LOCAL.fullmatch(value):
            return _cut(value)
    return value


def below(name: str, entries: Iterable[str]) -> str:
    """What a source file is called below the entry of `sources` that it belongs to.

    Stores of ladm 0.1 know files by their addresses; later ones by such names.
    """
    for entry in entries:
        path = entry if "://" in entry else str(Path(entry).absolute())
        parts = path.rstrip("/").split("/")
        magic = [number for number, part in enumerate(parts) if any(mark in part for mark in "*?[")]
        root = "/".join(parts[: min([*magic, len(parts)])])
        if name.startswith(f"{root}/"):
            return name.removeprefix(f"{root}/")
        if name == root:
            return parts[-1]
    return name


def _cut(path: str) -> str:
    """A path's last part; of a pattern all from its first wildcard on."""
    parts = path.rstrip("/").split("/")
    magic = [number for number, part in enumerate(parts) if any(mark in part for mark in "*?[")]
    return "/".join([SOMEWHERE, *parts[min([*magic, len(parts) - 1]) :]]).rstrip("/")
