"""The configuration that a call from Python means: a file, values or a configuration, and what is changed of it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ladm.flows.config import RunConfig, load_config, validated
from ladm.flows.overrides import set_value
from ladm.tasks.errors import ConfigError

Configured = str | os.PathLike[str] | Mapping[str, Any] | RunConfig | None
"""What may stand for a configuration."""


def config_of(config: Configured = None, **changes: Any) -> RunConfig:
    """Read and check a configuration.

    Args:
        config: A YAML file, its values as a dict, or a configuration; the bundled sample's when not given.
        changes: Settings that take the place of its own, as `window={"length": 4096}`, as `window__length=4096`, or as
            `**{"window.length": 4096}`. What a mapping does not name stays as it is.

    Raises:
        ConfigError: With one line that names the field and the fix.
    """
    settings = dict(_settings(changes))
    if config is None or isinstance(config, str | os.PathLike):
        return load_config(None if config is None else os.fspath(config), settings)
    if not isinstance(config, Mapping | RunConfig):
        raise ConfigError(f"config: {type(config).__name__} is none; give a YAML file's path, a dict or a ladm.Config")
    given = config.model_dump(exclude_unset=True) if isinstance(config, RunConfig) else config
    values: dict[str, Any] = _plain(copy.deepcopy(dict(given)))
    for path, value in settings.items():
        set_value(values, path, value)
    return validated(values)


def _settings(changes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path → value, of every change."""
    for name, value in changes.items():
        path = f"{above}{str(name).replace('__', '.')}"
        given = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        if isinstance(given, Mapping) and given:
            yield from _settings(given, f"{path}.")
        else:
            yield path, _plain(given)


def _plain(value: Any) -> Any:
    """Values as YAML would give them: no paths, tuples or models."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(exclude_unset=True))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
