"""The settings of a run, and how they differ from those of another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

NOT_SET = "not set"


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's results, out of its record: its configuration, the model, and the versions of the stages."""
    model = record.get("model") or {}
    return {
        **record["config"],
        "model digest": model.get("digest"),
        "version": record.get("versions", {}).get("ladm"),
        "version of stage": record.get("stage_versions", {}),
    }


def setting_changes(before: dict[str, Any], now: dict[str, Any]) -> list[list[str]]:
    """[dotted name, before, now] of every setting that differs, as JSON; `not set` where a run has none."""
    old, new = dict(_flat("", before)), dict(_flat("", now))
    return [
        [name, old.get(name, NOT_SET), new.get(name, NOT_SET)]
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, one in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, one)
    else:
        yield prefix, orjson.dumps(value).decode()
