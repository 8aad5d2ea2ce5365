"""The Hugging Face hub: the files of one model repository, fetched so that nothing can hang and nothing unsafe comes.

`huggingface_hub.snapshot_download` waits without limit for the answer about a repository, so a network that swallows
packets would stop a nightly run for ever. Here the repository is asked for with a limit, and then each wanted file by
`hf_hub_download`, whose requests all have one. Files land in the hub's own cache, where other programs find them too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from ladm.tasks.errors import ModelError
from ladm.tasks.models.cache import cache_root, read_json, text_sha256, write_json
from ladm.tasks.redact import one_line

HUB_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
WANTED = ("*.json", "*.safetensors", "*.txt", "tokenizer.model", "spiece.model", "merges*")
TOKENIZER = ("config.json", "tokenizer*", "vocab*", "merges*", "spiece.model", "*_tokens*.json")
"""The files that a tokenizer is made of."""
UNWANTED = ("*/*", "consolidated*")  # other formats of the same weights
HUB_SECONDS = 5.0  # to answer about a repository or a file; each read of a download has the hub's own limit


def from_hub(reference: str, tell: Callable[[str], None], files: tuple[str, ...] = WANTED) -> Path:
    """The local snapshot of `org/name[@revision]`: only JSON, text, safetensors and sentencepiece files.

    Where the hub is out of reach, or `HF_HUB_OFFLINE` is set, what the hub's cache has is used. A revision that is a
    full commit hash is asked for once only.

    Args:
        reference: matches `HUB_ID`.
        tell: told when a download starts.
        files: Patterns of the files that are fetched: all of the model's, or its `TOKENIZER`.

    Raises:
        ModelError: there is no such repository or revision, or it is neither here nor within reach.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError  # noqa: PLC0415

    parts = HUB_ID.fullmatch(reference)
    assert parts is not None, f"{reference} was taken for a hub id"
    name, revision = parts["name"], parts["revision"]
    whose = reference if files == WANTED else f"{reference} {' '.join(files)}"
    record = cache_root() / "references" / f"{text_sha256(whose)}.json"
    fetched = (read_json(record) or {}).get("commit")
    if fetched is not None and fetched == revision and (config := _cached(name, "config.json", fetched)):
        return config.parent
    try:
        commit = _download(reference, name, revision, tell, files)
    except ModelError:
        raise
    except Exception as error:  # the hub raises its own errors, its HTTP client's, and OSErrors
        gone = isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError))
        known = None if gone else _cached(name, "config.json", fetched or revision)
        if known is not None:
            return known.parent
        first = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        raise ModelError(
            f"scorer.model: {reference!r} is not a local folder and could not be fetched from the Hugging Face hub"
            f" ({one_line(first)})"
        ) from error
    if fetched != commit:
        write_json(record, {"reference": reference, "commit": commit})
    config = _cached(name, "config.json", commit)
    if config is None:
        raise ModelError(f"scorer.model: {reference} has no config.json on the hub, so it is not a model")
    return config.parent


def _download(
    reference: str, name: str, revision: str | None, tell: Callable[[str], None], patterns: tuple[str, ...]
) -> str:
    """Fetches the files of a repository that are wanted and not in the hub's cache yet; the commit they are of."""
    from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415

    about = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
    commit = about.sha
    assert commit is not None, "the hub names a commit with every revision"
    files = [file.rfilename for file in about.siblings or []]
    wanted = [file for file in files if _matches(file, patterns) and not _matches(file, UNWANTED)]
    if patterns == WANTED and not any(file.endswith(".safetensors") for file in wanted):
        raise ModelError(
            f"scorer.model: {reference} has no safetensors weights on the hub; pickled weights (.bin, .pt) are"
            " never loaded, since reading them runs code"
        )
    missing = [file for file in wanted if _cached(name, file, commit) is None]
    if missing:
        tell(f"downloading {reference} from the Hugging Face hub")
    with no_bars():
        for file in missing:
            hf_hub_download(name, file, revision=commit, etag_timeout=HUB_SECONDS)
    return commit


def _cached(name: str, file: str, commit: str | None) -> Path | None:
    """A repository's file in the hub's cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    found = try_to_load_from_cache(name, file, revision=commit)
    return Path(found) if isinstance(found, str) else None


def _matches(file: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Keeps the hub's progress bars off stderr for a while: `tell` is how progress is told here."""
    from huggingface_hub.utils.tqdm import (  # noqa: PLC0415
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    had_bars = not are_progress_bars_disabled()
    if had_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            enable_progress_bars()
