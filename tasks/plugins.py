"""What other packages add to ladm: scorers, filters and exporters, found by the entry points that they declare.

A package says in its `pyproject.toml`, under `[project.entry-points."ladm.scorers"]`, by which name ladm is to know
which of its objects. One that cannot be loaded, or is not what it should be, does no harm to who does not ask for it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ladm.tasks.printable import printable

SCORERS, FILTERS, EXPORTERS = "ladm.scorers", "ladm.filters", "ladm.exporters"
"""The groups of entry points."""
NAME = re.compile(r"[a-z][a-z0-9_.]{0,59}", re.ASCII)


@dataclass(frozen=True)
class Plugin:
    """Something that another package adds."""

    name: str
    place: str
    """`module:object`."""
    distribution: str
    """The package's name and version, which is part of the key of what is made by it."""
    load: Callable[[], Any]


@functools.cache
def declared(group: str) -> dict[str, Plugin]:
    """Name → what a package declares under it; of two packages that declare one name, the first by their names."""
    found: dict[str, Plugin] = {}
    points = importlib.metadata.entry_points(group=group)
    for point in sorted(points, key=lambda one: (one.name, _distribution(one))):
        found.setdefault(point.name, Plugin(point.name, point.value, _distribution(point), point.load))
    return found


def loaded(
    group: str, check: Callable[[str, Any], str], taken: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """Load everything of a group.

    Args:
        group: One of the groups.
        check: Says, of a name and its object, what is wrong with it; nothing if it can be used.
        taken: Names that are ladm's own.

    Returns:
        Name → object; and name → why it cannot be used, in a line.
    """
    good: dict[str, Any] = {}
    bad: dict[str, str] = {}
    for name, plugin in declared(group).items():
        wrong = "ladm itself has one of this name" if name in taken else ""
        if not wrong and not NAME.fullmatch(name):
            wrong = "a name is made of small letters, digits and _"
        if not wrong:
            try:
                found = plugin.load()
                wrong = check(name, found)
            except (Exception, SystemExit) as error:  # whatever somebody else's module does
                wrong = f"it cannot be imported ({type(error).__name__}: {error})"
        if wrong:
            bad[name] = printable(f"{name} of {plugin.distribution} ({plugin.place}) cannot be used: {wrong}", 400)
        else:
            good[name] = found
    return good, bad


def distribution_of(group: str, name: str) -> str | None:
    """The package, with its version, that adds something; None where it is ladm's own."""
    plugin = declared(group).get(name)
    return plugin.distribution if plugin else None


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    of = point.dist
    return f"{of.name} {of.version}" if of else point.module
