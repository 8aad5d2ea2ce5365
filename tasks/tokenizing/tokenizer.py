"""A model's tokenizer: loaded once a process, and kept to its caller's thread while there is a shard for every core.

Nothing here imports transformers, except to load a tokenizer that has no tokenizer.json.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladm.tasks.errors import ModelError
from ladm.tasks.redact import one_line

if TYPE_CHECKING:
    from ladm.tasks.models.resolve import ResolvedModel


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


def load_tokenizer(resolved: ResolvedModel) -> Any:
    """The model's fast tokenizer, a `tokenizers.Tokenizer`, without truncation or padding.

    Text is data here, never a chat: the characters of a special token that occur in it, such as `<|im_end|>`, are
    encoded like any other characters (`encode_special_tokens`). That setting is lost when the tokenizer is pickled,
    so each process loads its own. Whether BOS and EOS are added is up to the caller's `add_special_tokens`.

    Raises:
        ModelError: the folder has no tokenizer, or a damaged or slow one.
    """
    if resolved.tokenizer_digest is None:
        raise ModelError(
            f"scorer.model: {resolved.reference} has no tokenizer files; add its tokenizer.json to {resolved.path}"
        )
    path = resolved.path / "tokenizer.json"
    try:
        tokenizer = _tokenizer_from_file(path) if path.exists() else _tokenizer_from_folder(resolved.path)
    except Exception as error:  # tokenizers raises plain Exception
        reason = one_line(str(error))[:300]
        raise ModelError(f"scorer.model: the tokenizer of {resolved.reference} cannot be loaded: {reason}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _tokenizer_from_file(path: Path) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415

    return Tokenizer.from_file(str(path))


def _tokenizer_from_folder(folder: Path) -> Any:
    """The fast tokenizer that `transformers` makes of an older vocabulary."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    from ladm.tasks.models.facts import quiet_transformers  # noqa: PLC0415

    with quiet_transformers():
        slow_or_fast = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not hasattr(slow_or_fast, "backend_tokenizer"):
        raise TypeError(f"{type(slow_or_fast).__name__} has no fast version")
    return slow_or_fast.backend_tokenizer


@lru_cache(maxsize=2)
def tokenizer_of(reference: str, digest: str) -> Any:
    """The tokenizer of the model `reference`, loaded once a process; `digest` is what it was when the run began."""
    from ladm.tasks.models.resolve import resolve_tokenizer  # noqa: PLC0415  (not needed when all is cached)

    resolved = resolve_tokenizer(reference)
    if resolved.tokenizer_digest != digest:
        raise ModelError(f"scorer.model: the tokenizer of {reference!r} changed during the run; run it again")
    return load_tokenizer(resolved)
