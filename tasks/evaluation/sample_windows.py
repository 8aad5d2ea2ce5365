"""Windows of the bundled sample: real text of known kinds, that a corpus is held against when it is calibrated.

Only the sample's whole documents count. It also holds splices and lists, to show what ranking is for, and those are no
real text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
import orjson
import zstandard

from ladm.tasks.evaluation.contrast_set import Coder
from ladm.tasks.evaluation.passages import SourceWindow

PACKAGE = "ladm.flows.sample"
"""Where the sample lies: a package of data."""
DOMAINS = "sample/"
"""How the names of the sample's domains begin."""
WINDOWS_A_DOCUMENT = 3
"""Of a document, at most: its beginning, its middle and its end."""
_CHARACTERS_A_TOKEN = 12  # more than any text has, so that what is not needed is not tokenized


def sample_digest(package: str = PACKAGE) -> str:
    """The sha256 of the sample's documents."""
    digest = hashlib.sha256()
    for file in _files(package):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def sample_windows(package: str, length: int, coder: Coder) -> list[SourceWindow]:
    """Windows of `length` tokens of the whole documents of the sample: up to `WINDOWS_A_DOCUMENT`, that do not overlap.

    Args:
        package: The sample's package.
        length: Tokens of a window.
        coder: The model's tokenizer.

    Returns:
        Windows whose domains are called `sample/…`.
    """
    windows = []
    for domain, text in _whole_documents(package):
        ids = np.array(coder.encode(text[: _CHARACTERS_A_TOKEN * WINDOWS_A_DOCUMENT * length]), np.int32)
        count = min(WINDOWS_A_DOCUMENT, len(ids) // length)
        doc_id = f"sample:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        for place in range(count):
            start = place * (len(ids) - length) // (count - 1) if count > 1 else 0
            windows.append(SourceWindow(doc_id, f"{DOMAINS}{domain}", ids[start : start + length], place))
    return windows


def _whole_documents(package: str) -> Iterator[tuple[str, str]]:
    """(domain, text) of the documents that are whole and no lists."""
    for file in _files(package):
        with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as lines:
            for line in lines.read().splitlines():
                record: dict[str, Any] = orjson.loads(line)
                if record["meta"]["kind"] == "whole":
                    yield record["meta"]["pile_set_name"], record["text"]


def _files(package: str) -> list[Traversable]:
    return sorted(
        (one for one in files(package).iterdir() if one.name.endswith(".jsonl.zst")), key=lambda one: one.name
    )
