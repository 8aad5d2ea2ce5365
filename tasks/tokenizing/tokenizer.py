"""The tokenizer of a process: loaded once, and kept to its caller's thread while there is a shard for every core."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ladm.tasks.errors import ModelError


@contextlib.contextmanager
def one_core_a_tokenizer() -> Iterator[None]:
    """While open, a tokenizer stays in its caller's thread: for when there is a shard for every core.

    With threads of its own beside those it takes a quarter more time.
    """
    name = "TOKENIZERS_PARALLELISM"  # the library looks at it whenever a batch is encoded
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@lru_cache(maxsize=2)
def tokenizer_of(reference: str, digest: str) -> Any:
    """The tokenizer of the model `reference`, loaded once a process; `digest` is what it was when the run began."""
    from ladm.tasks.models.resolve import load_tokenizer, resolve_model  # noqa: PLC0415  (not needed when all is cached)

    resolved = resolve_model(reference)
    if resolved.tokenizer_digest != digest:
        raise ModelError(f"scorer.model: the tokenizer of {reference!r} changed during the run; run it again")
    return load_tokenizer(resolved)
