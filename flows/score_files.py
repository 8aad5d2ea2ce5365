"""`ladm score`: scores text files, or Parquet files of ready windows, directly: no store, no DAG, no Prefect."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ladm.tasks.errors import ConfigError, ModelError, SourceError
from ladm.tasks.models.resolve import (
    ModelFacts,
    ResolvedModel,
    check_content,
    load_tokenizer,
    model_facts,
    resolve_model,
)
from ladm.tasks.scorers.calibration import ProfileWeights, load_calibration
from ladm.tasks.scorers.ladm import (
    CALIBRATED,
    LadmConfig,
    check_window_length,
    layers_left_out,
    left_out_line,
    measured_layers,
    min_window_length,
    wanted_layers,
)
from ladm.tasks.scorers.loaded_model import check_device, resolved_scorer
from ladm.tasks.tokenizing.windows import WindowConfig, cut_documents


@dataclass(frozen=True)
class FileWindow:
    """A window to score, and where it comes from."""

    file: str
    index: int
    input_ids: np.ndarray[Any, np.dtype[np.int64]]


def score_files(
    paths: Iterable[str], scorer: LadmConfig, length: int | None = None, take: str = "first"
) -> Iterator[dict[str, Any]]:
    """Score each window of each file, in order.

    A text file gives windows of `length` tokens (when not given: one window, as long as the file and the model's
    context allow). A Parquet file's `input_ids` rows are windows as they stand.

    Yields:
        One object a window: file, window (its index in the file), tokens, cds, cds_per_layer, layers; and
        dependency_score and order_score, where a calibration gives them. With `layers: calibrated`, windows are as
        long as the calibration's.

    Raises:
        UserError: A file that cannot be read or is too short, or a model that cannot be used.
    """
    check_device(scorer.device)
    config = resolved_scorer(scorer)
    files = [_existing(path) for path in paths]
    if length is not None and config.layers != CALIBRATED:
        check_window_length(config, length)
    resolved = resolve_model(config.model)
    facts = model_facts(resolved)
    weights: dict[str, ProfileWeights] = {}
    if config.layers == CALIBRATED:
        calibration = load_calibration(config.calibration, config.model, resolved.digest, length)
        config, length, weights = calibration.applied(config), calibration.window_length, calibration.weights
    wanted_layers(config, facts.n_layers)
    windows = [
        window
        for path in files
        for window in (
            _parquet_windows(path, config, facts)
            if path.suffix.lower() == ".parquet"
            else _text_windows(path, config, resolved, facts, length, take)
        )
    ]
    sizes = sorted({len(window.input_ids) for window in windows})
    if scorer.layers == CALIBRATED and sizes != [length]:
        other = next(window for window in windows if len(window.input_ids) != length)
        raise SourceError(f"{other.file}: {len(other.input_ids)} tokens; the calibration is for windows of {length}")
    layers_at = {size: measured_layers(config, facts, size) for size in sizes}
    # One line, about the longest windows: in shorter ones fewer layers may be left out, as each window's `layers` show.
    if sizes and (left_out := layers_left_out(config, facts, layers_at[sizes[-1]])):
        print(left_out_line(config, left_out, sizes[-1]), file=sys.stderr)
    yield from _scored(windows, config, resolved, layers_at, weights)


def _scored(
    windows: list[FileWindow],
    config: LadmConfig,
    resolved: ResolvedModel,
    layers_at: dict[int, list[int]],
    weights: dict[str, ProfileWeights],
) -> Iterator[dict[str, Any]]:
    from ladm.tasks.scorers.attention import load_calculator, score_windows  # noqa: PLC0415  (torch, after all checks)

    check_content(resolved)
    calculator = load_calculator(resolved.path, config)
    first = 0
    while first < len(windows):
        size = len(windows[first].input_ids)
        same = first
        # Neighbours of one length make a batch; a handful at a time, so that the first results show early.
        while same < len(windows) and same - first < 16 and len(windows[same].input_ids) == size:
            same += 1
        batch = windows[first:same]
        chosen = config.model_copy(update={"layers": tuple(layers_at[size])})
        scores = score_windows(calculator, chosen, np.stack([window.input_ids for window in batch]), weights)
        for window, score in zip(batch, scores, strict=True):
            yield {
                "file": window.file,
                "window": window.index,
                "tokens": size,
                "cds": score.cds,
                "cds_per_layer": score.cds_per_layer,
                "layers": score.layers,
            } | {f"{name}_score": value for name, value in score.by_profile.items()}
        first = same


def _existing(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise SourceError(f"{path}: no such file; give text files or Parquet files with an input_ids column")
    return file


def _parquet_windows(path: Path, config: LadmConfig, facts: ModelFacts) -> Iterator[FileWindow]:
    try:
        file = pq.ParquetFile(path)
        if "input_ids" not in file.schema_arrow.names:
            raise SourceError(f"{path}: no column input_ids; its columns are {', '.join(file.schema_arrow.names)}")
        column = file.read(columns=["input_ids"])["input_ids"]
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        raise SourceError(f"{path}: input_ids is {column.type}, not a list of integers")
    if not pa.types.is_integer(column.type.value_type):
        raise SourceError(f"{path}: input_ids is {column.type}, not a list of integers")
    for index, row in enumerate(column):
        ids = np.asarray(row.as_py() or [], dtype=np.int64)
        _check_row(f"{path} row {index}", ids, config, facts)
        yield FileWindow(str(path), index, ids)


def _check_row(where: str, ids: np.ndarray[Any, np.dtype[np.int64]], config: LadmConfig, facts: ModelFacts) -> None:
    shortest = min_window_length(config)
    if len(ids) < shortest:
        raise SourceError(f"{where}: {len(ids)} tokens; with these spans a window has at least {shortest}")
    if facts.max_positions is not None and len(ids) > facts.max_positions:
        raise SourceError(f"{where}: {len(ids)} tokens; the model's context is {facts.max_positions}")
    if ids.min() < 0 or ids.max() >= facts.vocab_size:
        raise SourceError(
            f"{where}: token ids from {ids.min()} to {ids.max()}; the model knows 0 to {facts.vocab_size - 1}"
        )


def _text_windows(
    path: Path, config: LadmConfig, resolved: ResolvedModel, facts: ModelFacts, length: int | None, take: str
) -> Iterator[FileWindow]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{path}: not UTF-8 text; convert it, or give Parquet with an input_ids column") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    if resolved.tokenizer_digest is None:
        raise ModelError(f"--model: {resolved.reference!r} has no tokenizer; give Parquet files with input_ids instead")
    tokenizer = load_tokenizer(resolved)
    if length is None:
        length = _whole_length(text, tokenizer, facts)
        if length < min_window_length(config):
            raise SourceError(
                f"{path}: {length} tokens; with these spans a window has at least {min_window_length(config)}: "
                "lower --span, --d-afs or --d-cds"
            )
    elif facts.max_positions is not None and length > facts.max_positions:
        raise ConfigError(f"--length: {length} is more than the model's context of {facts.max_positions}")
    (cut,) = cut_documents([text], tokenizer, WindowConfig.model_validate({"length": length, "take": take}))
    if not cut.windows:
        raise SourceError(f"{path}: {cut.doc_tokens} tokens, fewer than --length {length}")
    for window in cut.windows:
        yield FileWindow(str(path), window.index, window.input_ids.astype(np.int64))


def _whole_length(text: str, tokenizer: Any, facts: ModelFacts) -> int:
    """Tokens of the text, at most the model's context."""
    longest = facts.max_positions or 2**20
    (cut,) = cut_documents([text], tokenizer, WindowConfig(length=longest))
    return longest if cut.windows else cut.doc_tokens
