"""Keeps credentials that stand in a URI (of a source, a proxy, an old record) out of what is kept, and out of messages.

The one place that knows what a secret in a URI looks like: what is refused before a run is what would be masked in it.
"""

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


def one_line(text: str) -> str:
    """A message on one line, without the credentials of any URI in it."""
    return " ".join(str(without_secrets(text)).split())


def holds_secret(uri: str) -> bool:
    """Whether a URI holds a password, a token or a signature; a user alone is none."""
    return any(found["name"] or ":" in found[0] for found in SECRETS.finditer("".join(uri.split())))


def checked_uri(uri: str) -> str:
    """The URI itself.

    Raises:
        ValueError: It holds a password, or is signed: it would stand in run records, dataset cards and logs. Or it is
            no UTF-8, which those are.
    """
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "the address is not UTF-8; give another name, or find the files by a folder or a glob"
        ) from None
    if holds_secret(uri):
        raise ValueError(
            "the address holds a password, a token or a signature, which the records of a run would keep; leave it "
            "out, and give credentials by the environment"
        )
    return uri
