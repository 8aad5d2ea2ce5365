"""How a run makes a calibration of its own: the rows of its stages, and the plan once the calibration is there.

Windows of the corpus and of the bundled sample are drawn and broken (`contrast`), the model measures them (`scan`), and
a calibration is fitted (`calibrate`). Scoring waits for it. A run that finds it in the store does none of this.
"""

from __future__ import annotations

import dataclasses
import hashlib

import orjson

from ladm.flows.config import RunConfig
from ladm.flows.dag import asked
from ladm.flows.dag.jobs import Ask, model_of, versions
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.rows import Row, Take
from ladm.tasks.evaluation.contrast_set import CALIBRATE, ContrastConfig
from ladm.tasks.evaluation.fit import layers_allowed, paired_layers
from ladm.tasks.evaluation.sample_windows import PACKAGE, sample_digest
from ladm.tasks.evaluation.scores import Setting
from ladm.tasks.evaluation.topics import topic_layer
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.distance_profile import CELLS
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.loaded_calibration import nearest_calibration
from ladm.tasks.scorers.loaded_model import resolved_scorer
from ladm.tasks.settings import Settings
from ladm.tasks.stages import calibrate, contrast, gate, scan, score
from ladm.tasks.stages.calibrate import FitConfig, Lender
from ladm.tasks.stages.scan import ScanConfig
from ladm.tasks.storage.store import Store

READ_BY = {"weights": score.STAGE.name, "gate": gate.STAGE.name}
"""Part of a calibration → the stage that reads it, in whose folder its file lies."""


def can_be_calibrated(scorer: LadmConfig, length: int) -> bool:
    """Whether a calibration can be made for a configuration: the formula is open, and windows are long enough."""
    return scorer.formula == "published" and "ablation" not in scorer.model_fields_set and length >= CELLS


def ask_contrast(plan: Plan) -> list[Ask]:
    """Draw windows of the corpus and of the bundled sample, and break them."""
    model = model_of(plan)
    environment = {"model": plan.config.scorer.model, "sample": PACKAGE}
    identity = [model.tokenizer_digest, sample_digest()]
    return [Ask(_contrast(plan).model_dump(mode="json"), identity, environment, label="windows to calibrate by")]


def ask_scan(plan: Plan) -> list[Ask]:
    """Measure the windows of one document's shard."""
    scorer, model = resolved_scorer(plan.config.scorer), model_of(plan)
    environment = {"model": scorer.model, "device": scorer.device}
    config = _scan(plan).model_dump(mode="json", exclude_none=True)
    return [Ask(config, [model.digest, model.tokenizer_digest], environment)]


def ask_calibrate(plan: Plan) -> list[Ask]:
    """Make the calibration, with the help of the nearest one that is shipped."""
    model, length = model_of(plan), plan.config.window.length
    lender, digest = nearest_calibration(model.digest, length)
    config = FitConfig(
        scan=_scan(plan),
        length=length,
        n_layers=plan.n_layers,
        contrast=_contrast(plan),
        lender=Lender(model_digest=lender.model_digest, window_length=lender.window_length),
    )
    return [
        Ask(
            config.model_dump(mode="json", exclude_none=True),
            [model.digest, model.tokenizer_digest, sample_digest(), digest],
            {"model": model.reference, "versions": versions()},
            label="this corpus",
        )
    ]


def with_own_calibration(plan: Plan, made: Manifest) -> Plan:
    """The plan of the run from here on: scored by the calibration that was made, or found in the store."""
    store = Store(plan.config.store)
    (file,) = made.files
    store.check([file])
    calibration = Calibration.model_validate(orjson.loads(store.read_bytes(file.path)))
    scorer = calibration.stated(plan.config.scorer)
    config = plan.config.model_copy(update={"scorer": scorer})
    plan = dataclasses.replace(plan, config=config, calibration=calibration, layers=list(calibration.layers))
    return with_files(plan)


def with_files(plan: Plan) -> Plan:
    """The plan, with its calibration's weights and its gate in the store, where the jobs that read them find them."""
    store = Store(plan.config.store)
    found = calibration_files(store, plan.calibration)
    for content, file in found.values():
        if store.size(file.path) != file.bytes:
            store.write_bytes(file.path, content)
    return dataclasses.replace(plan, calibrated_by={name: file for name, (_, file) in found.items()})


def calibration_files(store: Store, calibration: Calibration | None) -> dict[str, tuple[bytes, Shard]]:
    """Of a calibration's weights and of its gate, as far as it has them: what the file holds, and where it lies."""
    parts: dict[str, Settings] = {}
    if calibration and calibration.weights.names:
        parts["weights"] = calibration.weights
    if calibration and calibration.gate:
        parts["gate"] = calibration.gate
    found = {}
    for name, part in parts.items():
        content = orjson.dumps(part.model_dump(mode="json"))
        digest = hashlib.sha256(content).hexdigest()
        path = store.shard_path(READ_BY[name], digest, "json")
        found[name] = content, Shard(key=digest, path=path, bytes=len(content), rows=0, sha256=digest)
    return found


def none_fits_line(config: RunConfig) -> str:
    """Tells, in a line, that no calibration fits, and what the run does instead."""
    scorer, length = config.scorer, config.window.length
    if asked.calibrates(config):
        return (
            f"scorer.layers: no calibration is shipped for {scorer.model!r}, windows of {length} tokens and these "
            f"spans; the run makes its own once, from windows of up to {config.calibrate.windows} documents of the "
            "corpus and of the bundled sample (stage calibrate), and keeps it in the store"
        )
    return (
        f"scorer.layers: no calibration fits {scorer.model!r}, windows of {length} tokens, this formula and these "
        "spans; documents are ranked by the formula over all layers, which junk may win"
    )


def _contrast(plan: Plan) -> ContrastConfig:
    asked = plan.config.calibrate
    share = max(1, asked.windows // 2)
    return ContrastConfig(
        windows=share,
        sample_windows=share,
        window_length=plan.config.window.length,
        seed=asked.seed,
        half=CALIBRATE,
    )


def _scan(plan: Plan) -> ScanConfig:
    scorer = resolved_scorer(plan.config.scorer)
    setting = Setting(scorer, plan.config.window.length, tuple(plan.layers), plan.n_layers)
    digest = model_of(plan).digest
    lender, _ = nearest_calibration(digest, setting.length)
    paired = paired_layers(setting)
    states_of = lender.weights.states_of if lender.model_digest == digest else topic_layer(paired)
    return ScanConfig(
        span=scorer.span,
        d_afs=scorer.d_afs,
        d_cds=scorer.d_cds,
        dtype="bfloat16" if scorer.dtype == "bfloat16" else "float32",
        layers=layers_allowed(setting),
        profile_layers=paired,
        topic_layer=states_of,
    )


ROWS = (
    Row(
        contrast.STAGE,
        "run",
        (Take("windows", "tokenize", "all"),),
        ask_contrast,
        units=("windows", "windows"),
        asked=asked.calibrates,
        receives=("tokenize",),
        passes_rows=True,
        needs="tokenizer",
        along_with="calibrate",
        shown="",
        begins_lineages=True,
        serves="calibrate",
    ),
    Row(
        scan.STAGE,
        "shard",
        (Take("windows", "contrast", "each"),),
        ask_scan,
        units=("windows", "windows"),
        asked=asked.calibrates,
        receives=("contrast",),
        needs="weights",
        holds_model=True,
        is_product=True,
        along_with="calibrate",
        shown="windows",
        serves="calibrate",
    ),
    Row(
        calibrate.STAGE,
        "run",
        (Take("measurements", "scan", "all"),),
        ask_calibrate,
        units=("windows", "windows"),
        asked=asked.calibrates,
        asked_by="scorer.layers: own",
        receives=("scan",),
        shown="jobs",
        settles=with_own_calibration,
    ),
)
"""The rows of the table of stages that make the calibration."""
WAIT = Take("", "calibrate", "all", when=asked.calibrates)
"""What is scored by the run's own calibration waits for it."""
