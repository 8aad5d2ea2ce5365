"""Publishing to a folder, on disk or on S3: data under names of its content, and last the one file that names it.

Who reads `manifest.json` first, and then what it names, never sees half a selection: what it names is there before it,
and stays until two more selections were published.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from typing import Any

import orjson

from ladm.tasks.errors import ConfigError
from ladm.tasks.manifest import Shard
from ladm.tasks.storage.file_systems import io_errors, reason_of
from ladm.tasks.storage.files import Files
from ladm.tasks.storage.store import Store

MANIFEST = "manifest.json"
SCHEMA = 1
OF_CONTENT = re.compile(r"[0-9a-f]{16}")
"""What the folders below `data` are called."""


def check_folder(to: str) -> None:
    """Refuse a place that cannot be written, by writing to it.

    Raises:
        ConfigError: One line.
    """
    try:
        target = Files(to, impatient=True)
        target.write_bytes(".writable", b"")
        target.remove(".writable")
    except io_errors(ValueError, ImportError, NotImplementedError) as error:
        raise ConfigError(f"publish: {to!r} cannot be written ({reason_of(error)}); give another place") from None


def publish_to_folder(to: str, store: Store, files: Mapping[str, Shard], card: bytes, key: str) -> str:
    """Make a folder name some files.

    Args:
        to: The folder.
        store: Where the files are.
        files: Name → file.
        card: The card, `README.md` among them.
        key: What stands for all of it.

    Returns:
        The manifest's address.
    """
    target = Files(to)
    before = _manifest(target)
    if before.get("key") != key:
        entries = []
        for name, file in sorted(files.items()):
            path = f"data/{file.key[:16]}/{name}"
            if target.size(path) != file.bytes:
                _copy(store, file, target, path)
            entries.append({"name": name, "path": path, "bytes": file.bytes, "sha256": file.sha256})
        path = f"data/{key[:16]}/README.md"
        target.write_bytes(path, card)
        entries.append({"name": "README.md", "path": path, "bytes": len(card), "sha256": target.written[path][1]})
        earlier = [entry["path"] for entry in before.get("files", [])]
        made = {"schema": SCHEMA, "key": key, "files": entries, "before": earlier}
        target.write_bytes(MANIFEST, orjson.dumps(made, option=orjson.OPT_INDENT_2))
        named = {*earlier, *(entry["path"] for entry in entries)}
        target.remove_all([path for path in before.get("before", []) if path not in named])
        target.remove_empty_folders("data")
    return target.url(MANIFEST)


def published_places(to: str) -> list[str]:
    """The folders and the manifest that publishing to a folder has left there, by their addresses."""
    target = Files(to, impatient=True)
    places = [f"data/{name}" for name in target.names("data") if OF_CONTENT.fullmatch(name)]
    return [target.url(place) for place in (*places, MANIFEST)] if places else []


def _manifest(target: Files) -> dict[str, Any]:
    """What is published there now; nothing where that cannot be read."""
    try:
        found = orjson.loads(target.read_bytes(MANIFEST))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else {}


def _copy(store: Store, file: Shard, target: Files, path: str) -> None:
    with store.fs.open(store.full(file.path), "rb") as source, target.writing(path) as copy:
        shutil.copyfileobj(source, copy, 2**22)
    if target.written[path] != (file.bytes, file.sha256):
        target.remove(path)
        raise OSError(f"{file.path} changed while it was published")
