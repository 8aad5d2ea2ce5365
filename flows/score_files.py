"""`ladm score`: scores text files, or Parquet files of ready windows, directly: no store, no DAG, no Prefect.

Everything is read twice: once to check every window before any is scored, and once to score it. So no more is held
than a handful of windows, or one text file.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ladm.tasks.errors import ConfigError, ModelError, SourceError
from ladm.tasks.models.facts import ModelFacts, model_facts
from ladm.tasks.models.resolve import ResolvedModel, check_content, resolve_model
from ladm.tasks.scorers.calibration import Weights
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
from ladm.tasks.scorers.loaded_calibration import load_calibration
from ladm.tasks.scorers.loaded_model import check_device, in_fast_precision, resolved_scorer
from ladm.tasks.tokenizing.tokenizer import load_tokenizer
from ladm.tasks.tokenizing.windows import WindowConfig, cut_documents

AT_ONCE = 16
"""Windows read, and scored, at a time: a handful, so that the first results show early."""
READ_BYTES = 1 << 20
"""Read of a Parquet file at a time: without it, a whole row group's column would be."""


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
    config = resolved_scorer(in_fast_precision(scorer) if scorer.layers == CALIBRATED else scorer)
    files = [_existing(path) for path in paths]
    if length is not None and config.layers != CALIBRATED:
        check_window_length(config, length)
    resolved = resolve_model(config.model)
    facts = model_facts(resolved)
    weights = Weights()
    if config.layers == CALIBRATED:
        calibration = load_calibration(config.calibration, config.model, resolved.digest, length)
        config, length, weights = calibration.applied(config), calibration.window_length, calibration.weights
    wanted_layers(config, facts.n_layers)
    given = _Given(files, config, resolved, facts, length, take, calibrated=scorer.layers == CALIBRATED)
    sizes = sorted({len(window.input_ids) for window in _windows(given)})
    # One line, about the longest windows: in shorter ones fewer layers may be left out, as each window's `layers` show.
    layers_at = {size: measured_layers(config, facts, size) for size in sizes}
    if sizes and (left_out := layers_left_out(config, facts, layers_at[sizes[-1]])):
        print(left_out_line(config, left_out, sizes[-1]), file=sys.stderr)
    yield from _scored(given, weights)


@dataclass(frozen=True)
class _Given:
    """What is to be scored, and by what."""

    files: Sequence[Path]
    config: LadmConfig
    resolved: ResolvedModel
    facts: ModelFacts
    length: int | None
    take: str
    calibrated: bool


def _windows(given: _Given) -> Iterator[FileWindow]:
    """The windows of all files, in order, each found fit to be scored."""
    for path in given.files:
        read = _parquet_windows if path.suffix.lower() == ".parquet" else _text_windows
        for window in read(path, given):
            if given.calibrated and len(window.input_ids) != given.length:
                where = f"{path} row {window.index}" if read is _parquet_windows else str(path)
                tokens = len(window.input_ids)
                raise SourceError(f"{where}: {tokens} tokens; the calibration is for windows of {given.length}")
            yield window


def _scored(given: _Given, weights: Weights) -> Iterator[dict[str, Any]]:
    from ladm.tasks.scorers.calculator import load_calculator  # noqa: PLC0415  (torch, after all checks)
    from ladm.tasks.scorers.window_scores import score_windows  # noqa: PLC0415  (torch, after all checks)

    config = given.config
    check_content(given.resolved)
    calculator = load_calculator(given.resolved.path, config)
    for size, batch in _batches(_windows(given)):
        layers = measured_layers(config, given.facts, size)
        chosen = config.model_copy(update={"layers": tuple(layers)})
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


def _batches(windows: Iterator[FileWindow]) -> Iterator[tuple[int, list[FileWindow]]]:
    """Neighbours of one length, some at a time, with that length."""
    for size, same in itertools.groupby(windows, lambda window: len(window.input_ids)):
        while batch := list(itertools.islice(same, AT_ONCE)):
            yield size, batch


def _existing(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise SourceError(f"{path}: no such file; give text files or Parquet files with an input_ids column")
    return file


def _parquet_windows(path: Path, given: _Given) -> Iterator[FileWindow]:
    """A Parquet file's rows, a handful at a time, row group by row group."""
    index = 0
    try:
        with pq.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
            _check_column(path, file.schema_arrow)
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(AT_ONCE, row_groups=[group], columns=["input_ids"]):
                    for row in batch["input_ids"]:
                        ids = _ids_of(f"{path} row {index}", row)
                        _check_row(f"{path} row {index}", ids, given.config, given.facts)
                        yield FileWindow(str(path), index, ids)
                        index += 1
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


def _check_column(path: Path, schema: pa.Schema) -> None:
    if "input_ids" not in schema.names:
        raise SourceError(f"{path}: no column input_ids; its columns are {', '.join(schema.names)}")
    kind = schema.field("input_ids").type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type):
        raise SourceError(f"{path}: input_ids is {kind}, not a list of integers")


def _ids_of(where: str, row: pa.ListScalar) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A row's token ids; of a row that is null, none."""
    if row.values is None:
        return np.empty(0, dtype=np.int64)
    if row.values.null_count:
        raise SourceError(f"{where}: {row.values.null_count} of its token ids are null")
    # A copy: a slice would keep the rows beside it in memory.
    return np.array(row.values.to_numpy(), dtype=np.int64)


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


_tokenizer = lru_cache(maxsize=1)(load_tokenizer)


def _text_windows(path: Path, given: _Given) -> Iterator[FileWindow]:
    config, facts, length = given.config, given.facts, given.length
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{path}: not UTF-8 text; convert it, or give Parquet with an input_ids column") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    if given.resolved.tokenizer_digest is None:
        raise ModelError(
            f"--model: {given.resolved.reference!r} has no tokenizer; give Parquet files with input_ids instead"
        )
    tokenizer = _tokenizer(given.resolved)
    if length is None:
        length = _whole_length(text, tokenizer, facts)
        if length < min_window_length(config):
            raise SourceError(
                f"{path}: {length} tokens; with these spans a window has at least {min_window_length(config)}: "
                "lower --span, --d-afs or --d-cds"
            )
    elif facts.max_positions is not None and length > facts.max_positions:
        raise ConfigError(f"--length: {length} is more than the model's context of {facts.max_positions}")
    (cut,) = cut_documents([text], tokenizer, WindowConfig.model_validate({"length": length, "take": given.take}))
    if not cut.windows:
        raise SourceError(f"{path}: {cut.doc_tokens} tokens, fewer than --length {length}")
    for window in cut.windows:
        yield FileWindow(str(path), window.index, window.input_ids.astype(np.int64))


def _whole_length(text: str, tokenizer: Any, facts: ModelFacts) -> int:
    """Tokens of the text, at most the model's context."""
    longest = facts.max_positions or 2**20
    (cut,) = cut_documents([text], tokenizer, WindowConfig(length=longest))
    return longest if cut.windows else cut.doc_tokens
