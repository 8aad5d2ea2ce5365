"""Settings that are changed one by one, `a.b=c`, in the values of a configuration before it is checked."""

from __future__ import annotations

from typing import Any

from ladm.flows.complaints import short
from ladm.flows.yaml_text import read_yaml
from ladm.tasks.errors import ConfigError
from ladm.tasks.filters.config import entry_of


def setting(override: str) -> tuple[str, Any]:
    """The dotted path and the value of one `a.b=c`, whose value is YAML.

    Raises:
        ConfigError: It is not of that form.
    """
    path, equals, raw = override.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set: {override!r} is not of the form key=value, e.g. window.length=4096")
    try:
        value = read_yaml(raw)
    except ValueError as error:
        raise ConfigError(f"--set: the value of {path} is not valid YAML: {short(raw)} ({error})") from None
    return path.strip(), value


def set_value(values: dict[str, Any], path: str, value: Any) -> None:
    """Set the value of a dotted path, in place. A number in the path counts a list's entries from 0.

    Raises:
        ConfigError: The path leads nowhere.
    """
    *parents, last = path.split(".")
    place: Any = values
    for name in parents:
        place = _descend(place, name, path)
    if isinstance(place, list):
        _list_index(place, last, path)
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"--set: {path} leads into a value that has no fields")


def _descend(place: Any, name: str, path: str) -> Any:
    if isinstance(place, list):
        _list_index(place, name, path)
        entry = place[int(name)]
        if isinstance(entry, str):  # a shorthand entry, see RunConfig
            place[int(name)] = entry = _whole_entry(entry, path)
        return entry
    if not isinstance(place, dict):
        raise ConfigError(f"--set: {path} leads into a value that has no fields")
    if place.get(name) is None:
        place[name] = {}
    return place[name]


def _whole_entry(entry: str, path: str) -> dict[str, Any]:
    """What a string in a list stands for, so that its fields can be set."""
    if path.startswith("filters"):
        try:
            return entry_of(entry)
        except ValueError as error:
            raise ConfigError(f"filters: {error}") from None
    return {"format" if path.startswith("export") else "uri": entry}


def _list_index(place: list[Any], name: str, path: str) -> None:
    if not name.isascii() or not name.isdigit() or int(name) >= len(place):
        raise ConfigError(f"--set: {path}: {name!r} is not an entry of a list of {len(place)}, counted from 0")
