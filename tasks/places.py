"""Paths and URLs as people write them: `$NAME`, `${NAME}` and `~` stand for what they stand for in a shell."""

from __future__ import annotations

import glob
import os
import re

_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[^}]*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*)|[({])|`[^`]*`", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def expanded(place: str) -> str:
    """The path or URL that is meant. Names of files that are there may hold a `$` that begins no variable's name.

    Raises:
        ValueError: A variable of it is not set, or `~name` is nobody.
    """

    def value(found: re.Match[str]) -> str:
        name = found["braced"] if found["braced"] is not None else found["bare"]
        if name is None or not _NAME.fullmatch(name):
            raise ValueError(f"{found[0]!r} in {place!r} is not a variable; write $NAME, ${{NAME}} or the path itself")
        if not os.environ.get(name):
            raise ValueError(f"${name} in {place!r} is not set; set the environment variable, or write the path itself")
        return os.environ[name]

    try:
        whole = _VARIABLE.sub(value, place)
    except ValueError:
        if _is_there(place):
            return place
        raise
    if not whole.startswith("~"):
        return whole
    at_home = os.path.expanduser(whole)  # noqa: PTH111  (a Path would lose a glob's last slash, and a URL's two)
    if at_home == whole and not _is_there(whole):
        user = whole.split("/", 1)[0]
        raise ValueError(f"{user!r} in {place!r} has no home folder here; set HOME, or write the path itself")
    return at_home


def _is_there(path: str) -> bool:
    """Whether a file has a name that is literally this, or matches it."""
    return os.path.lexists(path) or next(glob.iglob(path, recursive=True), None) is not None  # noqa: PTH207
