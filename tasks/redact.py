"""Keeps credentials that stand in a URI (of a proxy, an endpoint, an old record) out of what is shown and kept."""

from __future__ import annotations

import re
from typing import Any

SECRETS = re.compile(
    r"(?<=://)[^/\s]+(?=@)"  # user and password of an authority
    r"|(?P<name>(?<=[?&])[\w-]*(?:token|secret|password|signature|sig|credential|key)[\w-]*=)[^&\s]+",
    re.IGNORECASE,
)


def without_secrets(value: Any) -> Any:
    """A string, or the strings in a JSON value, with users, signatures and tokens of URIs replaced by `***`."""
    if isinstance(value, str):
        return SECRETS.sub(lambda found: f"{found['name'] or ''}***", value)
    if isinstance(value, dict):
        return {name: without_secrets(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    return value
