"""Finding files on this machine: below a folder, or by a pattern, through links to folders too.

A link is followed where it leads to a folder not yet seen, so each file is found once, and a link that leads back to
a folder above itself is not followed.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fsspec.utils import glob_translate


def is_private(name: str) -> bool:
    """Whether a name is one that editors, version control and Spark use for their own."""
    return name.startswith((".", "_"))


def files_below(folder: Path, without: Iterable[str] = ()) -> Iterator[Path]:
    """Find every file below a folder, but for private names.

    Args:
        folder: Where to look.
        without: Real paths of folders that are not entered.

    Yields:
        The files. A folder that cannot be listed comes as a file: nobody knows what is missed in it.
    """
    for inside, entries in _walk(folder, without, private=False):
        if entries is None:
            yield inside
        else:
            yield from (inside / name for name, is_folder in entries if not is_folder)


def private_below(folder: Path) -> Iterator[Path]:
    """Find the files and folders below a folder that `files_below` leaves out for their names."""
    for inside, _ in _walk(folder, (), private=False):
        yield from (inside / name for name, _ in _entries(inside) or [] if is_private(name))


def matching(pattern: str, without: Iterable[str] = ()) -> list[Path]:
    """Find what a pattern matches: `*`, `?`, `[…]` within a name, and `**` for any number of folders.

    Args:
        pattern: An absolute path.
        without: Real paths of folders that `**` does not enter.

    Raises:
        ValueError: `**` is only a part of a name.
    """
    first, *parts = pattern.split("/")
    places = [Path(first or "/")]
    found: list[Path] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            walked = [one for place in places for one in _walk(place, without, private=True)]
            places = [inside for inside, _ in walked]
            found += [inside for inside, entries in walked if entries is None]
            if last:
                return [
                    *found,
                    *(
                        inside / name
                        for inside, entries in walked
                        for name, is_folder in entries or []
                        if not is_folder
                    ),
                ]
            continue
        if glob.has_magic(part):
            match = re.compile(glob_translate(part)).match
            places = [place / name for place in places for name, _ in _entries(place) or [] if match(name)]
            places = [place for place in places if not (place.is_symlink() and _is_above(place))]
        else:
            places = [place / part for place in places]
        places = [place for place in places if os.path.lexists(place) and (last or place.is_dir())]
    return found + places


Entries = list[tuple[str, bool]]
"""The names in a folder, sorted, each with whether it is a folder, or a link to one."""


def _walk(folder: Path, without: Iterable[str], private: bool) -> Iterator[tuple[Path, Entries | None]]:
    """A folder and all below it, each with what is in it, or None where it cannot be listed."""
    seen = set(without)
    ahead = [folder]
    while ahead:
        inside = ahead.pop()
        real = os.path.realpath(inside)
        if real in seen or (inside != folder and inside.is_symlink() and _is_above(inside)):
            continue
        seen.add(real)
        entries = _entries(inside)
        if entries is not None:
            entries = [entry for entry in entries if private or not is_private(entry[0])]
            ahead += [inside / name for name, is_folder in reversed(entries) if is_folder]
        yield inside, entries


def _is_above(link: Path) -> bool:
    """Whether a link leads to a folder that it lies in, however deep."""
    return f"{os.path.realpath(link.parent)}/".startswith(f"{os.path.realpath(link).rstrip('/')}/")


def _entries(folder: Path) -> Entries | None:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError:
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False
