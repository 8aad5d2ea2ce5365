"""Scanning: windows of the contrast set become measurements of attention, from which every formula can be worked out.

One forward pass a window: the span-to-span attention (PFS) of each layer and head that the published formula needs,
for whole windows with both strides halved as well; what the printed formula needs; the profile of attention by
distance of some layers; how far its parts share their vocabulary; the mean state of each part; the columns of the
text; and the scores of the scorers beside `ladm`. Scores, layer choices and calibrations, gate included, are arithmetic
on these, done many times over without the model. A scan of fewer layers ends after the last of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from ladm.tasks import progress
from ladm.tasks.errors import AccountError
from ladm.tasks.evaluation.contrast_set import WHOLE
from ladm.tasks.evaluation.passages import owners
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard
from ladm.tasks.scorers.coherence import log_shares
from ladm.tasks.scorers.distance_profile import FEATURES, profile_features, profile_plan
from ladm.tasks.scorers.ladm import LadmConfig, scoring_plan
from ladm.tasks.scorers.loaded_model import calculator_for, text_reader
from ladm.tasks.scorers.registry import BesideConfig
from ladm.tasks.scorers.segments import segments_of
from ladm.tasks.scorers.spans import SpanPlan
from ladm.tasks.scorers.text import text_columns
from ladm.tasks.scorers.vocabulary import vocabulary_features
from ladm.tasks.settings import Settings
from ladm.tasks.storage.store import Store, table_of

MEASUREMENTS = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("base", pa.string(), nullable=False),  # doc_id of the whole window's document
        pa.field("domain", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("half", pa.string(), nullable=False),
        pa.field("documents", pa.list_(pa.string()), nullable=False),
        pa.field("heads", pa.int32(), nullable=False),
        pa.field("pfs", pa.list_(pa.float32()), nullable=False),  # [layers, heads, pairs of the published plan]
        pa.field("fine", pa.list_(pa.float32())),  # [layers, pairs of `fine_plan`], mean of heads; of whole windows
        pa.field("paper", pa.list_(pa.float32())),  # [layers, pairs of the paper's plan], mean of heads; if asked for
        pa.field("profile", pa.list_(pa.float32()), nullable=False),  # [profile layers, heads, features]
        pa.field("shares", pa.list_(pa.float16()), nullable=False),  # [profile layers, heads, pairs of `coherence.py`]
        pa.field("vocabulary", pa.list_(pa.float32()), nullable=False),  # [features of `vocabulary.py`]
        pa.field("segments", pa.int32(), nullable=False),  # of the states
        pa.field("states", pa.list_(pa.float16()), nullable=False),  # [segments, dimensions of a state]
        pa.field("owners", pa.list_(pa.int32()), nullable=False),  # of each cell, whose it is, or -1; none of junk
        pa.field("text", pa.map_(pa.string(), pa.float64()), nullable=False),  # columns of the text, by name
        pa.field("beside", pa.map_(pa.string(), pa.float64())),  # scores of the scorers beside ladm, by name
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)
"""scan/: one row a window of the contrast set."""

NOT_ASKED = "of a kind that was not asked for"


class ScanConfig(Settings):
    """What is measured of each window; all of it counts for the key."""

    span: int
    d_afs: int
    d_cds: int
    dtype: Literal["float32", "bfloat16", "bfloat16-rounded"] = "float32"
    """`bfloat16-rounded`: float32 with every result rounded to bfloat16, for processors that compute it slowly."""
    kinds: tuple[str, ...] = ()
    """Kinds of window; those of other kinds are left out. All where none is given."""
    layers: tuple[int, ...]
    """Layers whose spans are measured, ascending."""
    profile_layers: tuple[int, ...] = ()
    """Layers whose profile is taken, ascending."""
    topic_layer: int | None = None
    """The layer whose states are kept."""
    paper: bool = False
    """Whether the printed formula's spans are measured too."""
    beside: BesideConfig = Field(default_factory=BesideConfig)
    """The scorers beside `ladm` that are to score the windows."""

    def scorer(self, model: str, device: str) -> LadmConfig:
        """The published formula with these spans, and how the model is to be loaded."""
        dtype = "bfloat16" if self.dtype == "bfloat16" else "float32"
        spans = {"span": self.span, "d_afs": self.d_afs, "d_cds": self.d_cds}
        return LadmConfig.model_validate({**spans, "dtype": dtype, "model": model, "device": device})


@dataclass(frozen=True)
class Measurement:
    """What one window's pass found; NaN where a layer was not measured.

    Attention between spans is the mean over heads. Dimensions: N layers, P pairs of the published plan, Q of
    `fine_plan`, R of the paper's plan; M layers, H heads and F features of the profile.
    """

    base: str
    domain: str
    kind: str
    half: str
    documents: tuple[str, ...]
    pfs_np: npt.NDArray[np.float32]
    fine_nq: npt.NDArray[np.float32] | None
    """None of broken windows."""
    paper_nr: npt.NDArray[np.float32] | None
    """None where it was not asked for."""
    profile_mhf: npt.NDArray[np.float32]
    share_mhp: npt.NDArray[np.float16]
    """`log_shares` of the pairs of cells."""
    vocabulary_v: npt.NDArray[np.float32]
    """`vocabulary_features`."""
    state_sz: npt.NDArray[np.float16]
    """Mean state of each segment (`states.py`); none where no layer was asked for."""
    owner_c: npt.NDArray[np.int_]
    """Of each cell of the profile, the number of the document in the window that it is of; -1 where of several. Of junk
    none."""
    text: dict[str, float]
    """Columns of the text, by name."""
    beside: dict[str, float]
    """Scores of the scorers beside `ladm`, where they were asked for."""
    seconds: float


def paper_config(config: LadmConfig) -> LadmConfig:
    """The printed formula with the configuration's span."""
    return LadmConfig(formula="paper", span=config.span)


def fine_plan(config: LadmConfig, length: int) -> SpanPlan:
    """The published formula's spans with both strides halved where they are even."""
    return scoring_plan(halved(config), length)


def halved(config: LadmConfig) -> LadmConfig:
    """The configuration with both strides halved; an odd stride stays."""
    strides = {name: value // 2 for name in ("d_afs", "d_cds") if (value := getattr(config, name)) % 2 == 0}
    return config.model_copy(update={**strides, "formula": "published"})


def scan(job: Job, store: Store, key: str) -> Outcome:
    """Measure the windows of one shard of the contrast set that are of the kinds asked for.

    The job's identity is the model's digest and the tokenizer's.
    """
    from ladm.tasks.scorers.model_turns import side_by_side  # noqa: PLC0415  (torch; not needed when all is cached)

    shard = job.one("windows")
    asked = ScanConfig.model_validate(job.config)
    config = asked.scorer(job.environment["model"], job.environment["device"])
    text_of = text_reader(config.model, job.identity[1])
    if text_of is None:
        raise AccountError("windows of a model without a tokenizer")
    calculator, turns = calculator_for(
        config, job.identity[0], head=asked.beside.head, rounded=asked.dtype == "bfloat16-rounded"
    )
    windows = [row for row in store.read_shard(shard).to_pylist() if row["kind"] in asked.kinds or not asked.kinds]
    rows: dict[str, list[Any]] = {name: [] for name in MEASUREMENTS.names}
    with turns.alone():
        measured = side_by_side(
            lambda window: measure(calculator, config, asked, window, text_of), windows, config.device
        )
        for window, (found, at_once) in zip(windows, measured, strict=True):
            for name in ("window_id", "base", "domain", "kind", "half", "documents"):
                rows[name].append(window[name])
            whose = window["parts"]
            rows["owners"].append(owners(len(window["input_ids"]), window["cuts"], whose) if whose else [])
            for name, value in found.items():
                rows[name].append(value / at_once if name == "seconds" else value)
            progress.report("scan", 1)
    left = shard.rows - len(windows)
    written = store.write_shard("scan", key, table_of(rows, MEASUREMENTS))
    return Outcome(
        counts=Counts(received=shard.rows, kept=written.rows, dropped={NOT_ASKED: left} if left else {}),
        shards=store.kept(written),
        measures={"windows": written.rows, "tokens": sum(len(window["input_ids"]) for window in windows)},
    )


def measure(calculator: Any, config: LadmConfig, asked: ScanConfig, window: dict[str, Any], text_of: Any) -> Any:
    """One window's columns of `MEASUREMENTS` that the model is needed for.

    Args:
        calculator: The model, with its head if a scorer beside `ladm` needs it.
        config: `asked.scorer(…)`.
        asked: What to measure.
        window: `kind` and `input_ids`.
        text_of: Decodes token ids.
    """
    from ladm.tasks.scorers.attention import one_pass  # noqa: PLC0415  (torch; not needed when all is cached)
    from ladm.tasks.scorers.calculator import token_ids  # noqa: PLC0415
    from ladm.tasks.scorers.window_scores import Wants  # noqa: PLC0415

    ids_BL = token_ids(calculator, np.array([window["input_ids"]]))
    length = ids_BL.shape[1]
    plan, fine = scoring_plan(config, length), fine_plan(config, length)
    paper, profile = scoring_plan(paper_config(config), length), profile_plan(length)
    spans = [plan, *([fine] if window["kind"] == WHOLE else []), *([paper] if asked.paper and paper.queries else [])]
    wanted = dict.fromkeys(spans, asked.layers) | ({profile: asked.profile_layers} if asked.profile_layers else {})
    needs = asked.beside.needs(length)
    started = time.perf_counter()
    passed = one_pass(calculator, wanted, ids_BL, needs.targets, states_of=asked.topic_layer)
    seconds = time.perf_counter() - started
    found: dict[SpanPlan, Any] = {one: passed.pfs[one][:, 0] for one in wanted}  # [layers, heads, pairs]
    beside = None
    if asked.beside.names:
        read = Wants(config, length, asked.layers, needs, profiled=asked.profile_layers).read(passed)
        beside = list(asked.beside.scores(read.evidence(calculator, 0, ids_BL[0].numpy(), text_of)).items())
    return {
        "heads": found[plan].shape[1],
        "pfs": found[plan].ravel(),
        "fine": found[fine].mean(axis=1).ravel() if fine in spans else None,
        "paper": found[paper].mean(axis=1).ravel() if paper in spans else None,
        "profile": profile_features(profile, passed.pfs[profile])[0].ravel() if profile in wanted else [],
        "shares": log_shares(profile, found[profile]).astype(np.float16).ravel() if profile in wanted else [],
        "vocabulary": vocabulary_features(ids_BL[0].numpy()) if profile in wanted else [],
        "segments": segments_of(length),
        "states": passed.states[0].astype(np.float16).ravel() if passed.states is not None else [],
        "text": list(text_columns(ids_BL[0].numpy(), text_of(ids_BL[0].numpy())).items()),
        "beside": beside,
        "seconds": seconds,
    }


def read_measurements(store: Store, shards: list[Shard], asked: ScanConfig, layers: Sequence[int]) -> list[Measurement]:
    """The measurements of some shards, in their order; `layers` are those of the table, which hold all `asked` for."""
    places = [layers.index(layer) for layer in asked.layers]

    def by_layer(values: list[float], heads: int = 1) -> npt.NDArray[np.float32]:
        measured = np.array(values, dtype=np.float32).reshape(len(places), heads, -1).mean(axis=1, dtype=np.float32)
        every = np.full((len(layers), measured.shape[1]), np.nan, dtype=np.float32)
        every[places] = measured
        return every

    found = []
    for shard in shards:
        read = store.read_shard(shard)
        halves = {name: [one.values.to_numpy() for one in read[name]] for name in ("shares", "states")}
        rows = read.drop_columns(["shares", "states"]).to_pylist()
        for row, share, state in zip(rows, halves["shares"], halves["states"], strict=True):
            profile = np.array(row["profile"], dtype=np.float32)
            found.append(
                Measurement(
                    base=row["base"],
                    domain=row["domain"],
                    kind=row["kind"],
                    half=row["half"],
                    documents=tuple(row["documents"]),
                    pfs_np=by_layer(row["pfs"], row["heads"]),
                    fine_nq=by_layer(row["fine"]) if row["fine"] else None,
                    paper_nr=by_layer(row["paper"]) if row["paper"] else None,
                    profile_mhf=profile.reshape(len(asked.profile_layers), row["heads"], len(FEATURES)),
                    share_mhp=share.reshape(len(asked.profile_layers), row["heads"], -1),
                    vocabulary_v=np.array(row["vocabulary"], dtype=np.float32),
                    state_sz=state.reshape(row["segments"], -1),
                    owner_c=np.array(row["owners"], dtype=int),
                    text=dict(row["text"]),
                    beside=dict(row["beside"] or []),
                    seconds=row["seconds"],
                )
            )
    return found


STAGE = Stage(name="scan", version="8", compute=scan, roles=("windows",))
