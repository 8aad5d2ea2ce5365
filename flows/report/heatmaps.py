"""Pictures of a window: the attention mass of every span on every earlier one, kept beside the run's report.

Scoring samples spans and keeps sums, so a picture needs another forward pass of its window. It is made only when asked
for, with the run's own model and layers, and stays in `runs/<run_id>/heatmaps.parquet` for the next report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ladm.tasks.errors import ConfigError, ModelError
from ladm.tasks.scorers.ladm import CALIBRATED, LadmConfig
from ladm.tasks.scorers.loaded_calibration import load_calibration
from ladm.tasks.scorers.loaded_model import calculator_for, resolved_scorer
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store, table_of

HEATMAPS = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("span", pa.int32(), nullable=False),  # tokens in a span
        pa.field("layers", pa.list_(pa.int32()), nullable=False),  # whose mean it is
        pa.field("spans", pa.int32(), nullable=False),  # N
        pa.field("pfs", pa.list_(pa.float32()), nullable=False),  # N·N, query span by query span; NaN: not measured
    ]
)
"""runs/<run_id>/heatmaps.parquet: one row a window."""


@dataclass(frozen=True)
class Heatmap:
    """The attention of one window, span by span."""

    window_id: str
    span: int
    """Tokens in a span."""
    layers: list[int]
    pfs: npt.NDArray[np.float32]
    """NN: row = query span, column = key span, in the order of the text; NaN where not measured."""


def stored_heatmaps(store: Store, run_id: str) -> list[Heatmap]:
    """The pictures that were made of a run's windows so far."""
    path = _path(run_id)
    if store.size(path) is None:
        return []
    with store.fs.open(store.full(path), "rb") as file:
        rows = pq.read_table(file).to_pylist()
    return [
        Heatmap(
            row["window_id"],
            row["span"],
            row["layers"],
            np.array(row["pfs"], dtype=np.float32).reshape(row["spans"], row["spans"]),
        )
        for row in rows
    ]


def measure_heatmaps(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    record: dict[str, Any],
    window_ids: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    """Measure the windows that have no picture yet, one forward pass each, and store them.

    Args:
        store: The store.
        connection: Has the run's views.
        record: The run's record; it says which model, which spans, which formula.
        window_ids: The windows to picture.
        tell: Told of each window.

    Raises:
        UserError: The run's model or calibration cannot be had any more.
    """
    done = stored_heatmaps(store, record["run_id"])
    missing = sorted(set(window_ids) - {one.window_id for one in done})
    if not missing:
        return
    config, digest = _scorer(record)
    duck.set_variables(connection, {"window_ids": missing})
    windows = connection.execute(duck.statement("report_windows")).to_arrow_table().to_pylist()
    calculator, turns = calculator_for(config, digest)
    from ladm.tasks.scorers.window_scores import span_attention  # noqa: PLC0415  (torch)

    for number, window in enumerate(windows, start=1):
        tell(f"heatmap {number} of {len(windows)}: window {window['window_id']}")
        chosen = config.model_copy(update={"layers": tuple(window["layers"])})
        ids_L = np.array(window["input_ids"], dtype=np.int64)
        with turns.alone():
            pfs_NN = span_attention(calculator, chosen, ids_L)
        done.append(Heatmap(window["window_id"], config.span, window["layers"], pfs_NN))
    _write(store, record["run_id"], done)


def _scorer(record: dict[str, Any]) -> tuple[LadmConfig, str]:
    """The scorer that the run's scores come from, and its model's digest."""
    from ladm.tasks.models.resolve import resolve_model  # noqa: PLC0415

    try:
        config = resolved_scorer(LadmConfig.model_validate(record["config"]["scorer"]))
    except ValidationError:
        raise ConfigError("--heatmaps: this version cannot read the run's scorer; run it again first") from None
    digest = record["model"]["digest"]
    if resolve_model(config.model).digest != digest:
        raise ModelError(f"--heatmaps: {config.model!r} is another model than the one of the run; put that one back")
    if config.layers == CALIBRATED:
        length = record["config"]["window"]["length"]
        config = load_calibration(config.calibration, config.model, digest, length).applied(config)
    return config, digest


def _write(store: Store, run_id: str, heatmaps: Sequence[Heatmap]) -> None:
    rows: dict[str, list[Any]] = {
        "window_id": [one.window_id for one in heatmaps],
        "span": [one.span for one in heatmaps],
        "layers": [one.layers for one in heatmaps],
        "spans": [len(one.pfs) for one in heatmaps],
        "pfs": [one.pfs.ravel() for one in heatmaps],
    }
    with store.parquet_writer(_path(run_id), run_id, HEATMAPS) as writer:
        writer.write(table_of(rows, HEATMAPS))


def _path(run_id: str) -> str:
    return f"runs/{run_id}/heatmaps.parquet"
