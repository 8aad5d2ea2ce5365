"""Records of the store with their own checksum in them, and the manifest that such a record holds."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from ladm.tasks.manifest import Manifest


def sealed(record: bytes) -> bytes:
    """A JSON object with its own checksum in it: the sha256 of the object without it, written canonically."""
    bare = orjson.loads(record)
    return orjson.dumps({**bare, "sha256": _checksum(bare)})


def unsealed(content: bytes) -> bytes:
    """The JSON object that was sealed; `ValueError` if it is not what was written."""
    record = orjson.loads(content)
    checksum = record.pop("sha256", None)
    if checksum != _checksum(record) and (checksum or record.keys() != {"metadata", "result"}):
        raise ValueError("the record is not what was written")
    return orjson.dumps(record)


def _checksum(record: Any) -> str:
    return hashlib.sha256(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)).hexdigest()


def manifest_of(record: bytes) -> Manifest:
    """The manifest in an unsealed record, which is a result of Prefect's."""
    return Manifest.from_json(orjson.loads(record)["result"])
