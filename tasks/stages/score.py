"""Scoring: a shard of windows becomes a shard of scores, by the attention of the calculator model.

The model is loaded once a process and only when a shard really has to be scored. A window whose score is not
finite is quarantined by name: it must never be ranked.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ladm.tasks import progress
from ladm.tasks.job import Job, Outcome, QuarantineEntry, Stage
from ladm.tasks.manifest import Counts, Shard
from ladm.tasks.models.resolve import ResolvedModel
from ladm.tasks.schema import SCORES
from ladm.tasks.scorers.calibration import ProfileWeights
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.registry import BESIDE
from ladm.tasks.stages.tokenize import tokenizer_of
from ladm.tasks.storage.read_ahead import one_ahead
from ladm.tasks.storage.store import Store, table_of

if TYPE_CHECKING:
    from ladm.tasks.scorers.model_turns import Turns

CARRIED = ["window_id", "doc_id", "domain", "window_index", "n_tokens", "doc_tokens", "doc_tokens_exact"]
UNKEYED = {"model", "device", "batch_tokens", "calibration"}


# One model serves a process; two threads must not load it twice.
_model_lock = threading.Lock()


def accelerator() -> str:
    """`cuda` if an NVIDIA GPU can be used, else `cpu`, told without importing torch."""
    from importlib.metadata import version  # noqa: PLC0415

    has_driver = Path("/dev/nvidiactl").exists()
    return "cuda" if has_driver and "+cpu" not in version("torch") else "cpu"


def resolved_scorer(config: LadmConfig) -> LadmConfig:
    """The scorer with `auto` replaced: bfloat16 on a GPU, float32 elsewhere. The precision is part of the key."""
    device = accelerator() if config.device == "auto" else config.device
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    return config.model_copy(update={"device": device, "dtype": dtype})


def score_key_config(config: LadmConfig, weights: Mapping[str, ProfileWeights] | None = None) -> dict[str, Any]:
    """What scoring computes with. The model counts by its digest, and where it runs does not count.

    `config` is what a calibration, if there is one, says it to be, and `weights` are its own: they count, not its path.
    """
    key = resolved_scorer(config).model_dump(mode="json", exclude=UNKEYED | {"beside"})
    beside = config.beside.model_dump(mode="json", exclude_none=True)
    key |= {"beside": beside} if beside else {}
    return key | ({"weights": {name: one.model_dump(mode="json") for name, one in weights.items()}} if weights else {})


@lru_cache(maxsize=1)
def _calculator(resolved: ResolvedModel, device: str, dtype: str, head: bool, rounded: bool) -> Any:
    from ladm.tasks.models.resolve import check_content  # noqa: PLC0415
    from ladm.tasks.scorers.attention import load_calculator  # noqa: PLC0415  (torch; not needed when all is cached)
    from ladm.tasks.scorers.rounding import round_to_bfloat16  # noqa: PLC0415

    check_content(resolved)
    calculator = load_calculator(
        resolved.path, LadmConfig.model_validate({"device": device, "dtype": dtype}), head=head
    )
    if rounded:
        round_to_bfloat16(calculator.model)
    return calculator


def text_reader(reference: str, digest: str | None) -> Callable[[npt.NDArray[np.integer]], str] | None:
    """Decodes token ids by the model's own tokenizer; None where the model has none."""
    if digest is None:
        return None
    tokenizer = tokenizer_of(reference, digest)
    return lambda ids_L: str(tokenizer.decode(ids_L.tolist(), skip_special_tokens=False))


@lru_cache
def _turns(on_cpu: bool) -> Turns:
    import torch  # noqa: PLC0415

    from ladm.tasks.scorers.model_turns import AT_ONCE_ON_CPU, Turns  # noqa: PLC0415

    return Turns(torch.get_num_threads(), AT_ONCE_ON_CPU if on_cpu else 1)


def calculator_for(config: LadmConfig, digest: str, *, head: bool = False, rounded: bool = False) -> tuple[Any, Turns]:
    """The process's one calculator, loaded at the first call, and what hands out turns with it.

    `digest` is the model's when the run began; a model that changed since is our own mistake to go on with. `head`
    asks for the language-model head as well, `rounded` for one that rounds to bfloat16 (`rounding.py`).
    """
    from ladm.tasks.models.resolve import resolve_model  # noqa: PLC0415

    resolved = resolve_model(config.model)
    assert resolved.digest == digest, f"the model {config.model} changed during the run"
    with _model_lock:
        calculator = _calculator(resolved, config.device, config.dtype, head, rounded)
        return calculator, _turns(calculator.device.type == "cpu")


def score(job: Job, store: Store, key: str) -> Outcome:
    """Score every window of one shard, in batches of windows of one length.

    Inputs: the shard of windows and, if any of its documents are not to be scored, their list (`dedup.py`). Counts are
    of the windows that are to be scored.
    """
    from ladm.tasks.scorers.attention import score_windows  # noqa: PLC0415
    from ladm.tasks.scorers.calculator import windows_at_once  # noqa: PLC0415

    shard, *drop_lists = job.inputs
    scorer = {name: value for name, value in job.config.items() if name != "weights"}
    config = LadmConfig.model_validate({**scorer, **job.environment})
    weights = {name: ProfileWeights.model_validate(one) for name, one in job.config.get("weights", {}).items()}
    calculator, turns = calculator_for(config, job.identity[0], head=config.beside.head)
    text_of = text_reader(config.model, job.identity[1]) if config.beside.text else None
    rows: dict[str, list[Any]] = {name: [] for name in SCORES.names}
    quarantine: list[QuarantineEntry] = []
    windows = 0
    rows_a_pass = windows_at_once(calculator, config, window_length(store, shard))
    rows_a_batch = windows_a_batch(rows_a_pass, turns.at_once)
    # Where no other pass can go beside it, `score_windows` cuts a batch itself, and smaller if memory runs out.
    rows_a_turn = rows_a_pass if turns.at_once > 1 else rows_a_batch
    for batch, ids_BL in one_ahead(batches_to_score(store, shard, drop_lists, rows_a_batch)):
        windows += batch.num_rows
        turns_BL = [ids_BL[start : start + rows_a_turn] for start in range(0, len(ids_BL), rows_a_turn)]
        passed = turns.each(lambda ids_BL: score_windows(calculator, config, ids_BL, weights, text_of), turns_BL)
        scores = [one for scored in passed for one in scored]
        carried = {name: batch[name].to_pylist() for name in CARRIED}
        for number, result in enumerate(scores):
            found = (
                {"score": result.cds}
                | {f"{name} score": one for name, one in result.by_profile.items()}
                | result.beside
            )
            if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
                doc_id, window_id = carried["doc_id"][number], carried["window_id"][number]
                reason = f"the {wrong[0]} of window {window_id} is {found[wrong[0]]}"
                quarantine.append(QuarantineEntry(source=shard.path, line=None, reason=reason, doc_id=doc_id))
                continue
            for name in CARRIED:
                rows[name].append(carried[name][number])
            rows["cds"].append(result.cds)
            rows["cds_per_layer"].append(result.cds_per_layer)
            rows["layers"].append(result.layers)
            for name in ("dependency", "order"):
                rows[f"{name}_score"].append(result.by_profile.get(name))
            for name in BESIDE:
                rows[name].append(result.beside.get(name))
        progress.report("score", len(scores))
    written = store.write_shard("score", key, table_of(rows, SCORES))
    return Outcome(
        counts=Counts(received=windows, kept=written.rows, quarantined=len(quarantine)),
        shards=store.kept(written),
        quarantine=quarantine,
        measures={"windows": windows, "tokens": sum(rows["n_tokens"])},
    )


def window_length(store: Store, shard: Shard) -> int:
    """Tokens of the shard's windows, which are all of one length."""
    first = next(store.shard_batches(shard, rows=1, columns=["n_tokens"]))
    return int(first["n_tokens"][0].as_py())


def windows_a_batch(at_once: int, passes: int = 1) -> int:
    """Windows to read at a time: what so many passes of the model take at once, in whole ones, but at least four."""
    return at_once * max(passes, math.ceil(4 / at_once))


def batches_to_score(
    store: Store, shard: Shard, drop_lists: Sequence[Shard], rows: int
) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.int64]]]:
    """The shard's windows in batches of at most `rows`, each with its ids_BL, without those that are not to be scored.

    A batch holds `rows` windows, but for the last, however many are left out: a batch half full costs the device as
    much as a full one.
    """
    left_out = pa.array(store.doc_ids(drop_lists), type=pa.string())
    waiting: list[pa.RecordBatch] = []
    for batch in store.shard_batches(shard, rows):
        waiting.append(batch.filter(pc.invert(pc.is_in(batch["doc_id"], left_out))) if len(left_out) else batch)
        if sum(one.num_rows for one in waiting) >= rows:
            gathered = pa.concat_batches(waiting)
            yield _with_ids(gathered.slice(0, rows))
            waiting = [gathered.slice(rows)]
    if any(one.num_rows for one in waiting):
        yield _with_ids(pa.concat_batches(waiting))


def _with_ids(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, npt.NDArray[np.int64]]:
    return batch, np.stack(batch["input_ids"].to_numpy(zero_copy_only=False)).astype(np.int64)


STAGE = Stage(name="score", version="3", compute=score)
