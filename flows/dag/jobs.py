"""What each stage is given: the settings, identities and surroundings of its jobs, from the plan of a run.

One function a stage. Which shards a job gets, and when it is due, stands in the table of stages (`stages.py`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from dataclasses import dataclass, field
from typing import Any

import orjson

from ladm.flows.dag import asked
from ladm.flows.dag.plan import Plan
from ladm.tasks.exporters.formats import distribution_of
from ladm.tasks.exporters.tokens import TokenExport
from ladm.tasks.manifest import Shard
from ladm.tasks.models.resolve import ResolvedModel
from ladm.tasks.reading.groups import groups_of
from ladm.tasks.reading.sources import ListedFile
from ladm.tasks.scorers.loaded_model import resolved_scorer
from ladm.tasks.scorers.registry import BesideConfig
from ladm.tasks.shingles import minhash_version
from ladm.tasks.stages.calibrate import told
from ladm.tasks.stages.cut import can_be_cut, format_of
from ladm.tasks.stages.dedup import dedup_key_config
from ladm.tasks.stages.filter import filter_key_config
from ladm.tasks.stages.ingest import ingest_identity, ingest_key_config
from ladm.tasks.stages.length import length_key_config
from ladm.tasks.stages.measure import measure_key_config
from ladm.tasks.stages.rank import GATE_RULES
from ladm.tasks.stages.score import score_key_config

VERSIONED = ("ladm", "torch", "transformers", "tokenizers", "prefect", "duckdb", "pyarrow")


@dataclass(frozen=True)
class Ask:
    """One job of a stage, but for its inputs. The fields are those of `Job`."""

    config: dict[str, Any]
    identity: list[Any] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, list[Shard]] = field(default_factory=dict)
    """Inputs that no stage of the run makes."""
    label: str = ""
    """Of a job that is not of one shard; what is added to the shard's label otherwise."""


def versions() -> dict[str, str]:
    """Versions of what computes the results."""
    known = {"python": platform.python_version()}
    for package in VERSIONED:
        known[package] = importlib.metadata.version(package)
    return known


def config_sha256(config: dict[str, Any]) -> str:
    """The identity of a run's configuration: sha256 of it as JSON with sorted keys and no white space."""
    return hashlib.sha256(orjson.dumps(config, option=orjson.OPT_SORT_KEYS)).hexdigest()


def files_to_read(plan: Plan) -> list[list[ListedFile]]:
    """The source files, of which small ones are read together."""
    return groups_of(plan.files, plan.config.ingest.pack_bytes)


def large_files(plan: Plan) -> list[list[ListedFile]]:
    """The source files that may be read in parts."""
    return [[listed] for listed in plan.files if can_be_cut(listed, plan.config.ingest)]


def ask_cut(plan: Plan, listed: ListedFile) -> Ask:
    """Cut one large source file."""
    sizes = plan.config.ingest.model_dump(include={"part_bytes", "shard_bytes"})
    return Ask({"format": format_of(listed.file.uri, listed.config), **sizes})


def ask_ingest(plan: Plan, listed: ListedFile) -> Ask:
    """Read one source file."""
    return Ask(ingest_key_config(listed.config, plan.config.ingest), ingest_identity(listed.file.uri, listed.config))


def ask_benchmarks(plan: Plan, listed: ListedFile) -> Ask:
    """Read one benchmark file."""
    decontaminate = plan.config.decontaminate
    assert decontaminate is not None
    reading = listed.config.model_dump(include={"text", "format", "max_record_bytes", "keep"})
    return Ask({**decontaminate.model_dump(include={"ngram", "shortest"}), **reading})


def ask_length(plan: Plan) -> list[Ask]:
    """Leave out what cannot fill a window."""
    return [Ask(length_key_config(plan.config.length, plan.config.window.length))]


def ask_filter(plan: Plan) -> list[Ask]:
    """Leave out what a filter drops."""
    return [Ask(filter_key_config(plan.config.filters), list(plan.filters))]


def ask_tokenize(plan: Plan) -> list[Ask]:
    """Cut windows."""
    return [
        Ask(plan.config.window.model_dump(), [model_of(plan).tokenizer_digest], {"model": plan.config.scorer.model}),
    ]


def ask_short(plan: Plan) -> list[Ask]:
    """Count the tokens of documents that fill no window."""
    config: dict[str, Any] = {"window_length": plan.config.window.length}
    if plan.filters:
        config |= filter_key_config(plan.config.filters)
    return [Ask(config, [model_of(plan).tokenizer_digest, *plan.filters], {"model": plan.config.scorer.model})]


def ask_signatures(plan: Plan) -> list[Ask]:
    """The signatures of documents; the threshold of similarity makes no difference to them."""
    near = plan.config.deduplicate and plan.config.deduplicate.near
    config = {"near": near.model_dump(exclude={"threshold"}) if near else None}
    return [Ask(config, [minhash_version()] if near else [])]


def ask_short_signatures(plan: Plan) -> list[Ask]:
    """The signatures of the short documents among some."""
    return [Ask(one.config, one.identity, one.environment, label=", short") for one in ask_signatures(plan)]


def ask_dedup(plan: Plan) -> list[Ask]:
    """Decide which documents are not scored."""
    return [Ask(dedup_key_config(plan.config.deduplicate), label="all shards")]


def ask_score(plan: Plan) -> list[Ask]:
    """Score windows by the formula, and by a calibration's weights."""
    scorer = resolved_scorer(plan.scorer)
    environment = {
        "model": scorer.model,
        "device": scorer.device,
        "batch_tokens": scorer.batch_tokens,
        # The key keeps the layers as they were asked for; what `all` means follows from the rest of the key.
        "layers": plan.layers,
    }
    weights = {"weights": [plan.calibrated_by["weights"]]} if "weights" in plan.calibrated_by else {}
    return [Ask(score_key_config(scorer), [model_of(plan).digest], environment, inputs=weights)]


def ask_measures(plan: Plan) -> list[Ask]:
    """The measured columns that need no model: one job each."""
    return _measures(plan, model=False)


def ask_model_measures(plan: Plan) -> list[Ask]:
    """The measured columns that the model is needed for: one job each."""
    return _measures(plan, model=True)


def ask_text(plan: Plan) -> list[Ask]:
    """The columns of the text, which every run has."""
    return _measures(plan, model=False, beside={"text": {}})


def ask_attention(plan: Plan) -> list[Ask]:
    """The columns of the attention, which the gate reads."""
    calibration = plan.calibration
    if calibration is None or calibration.gate is None:
        return []
    asked = {"attention": {"layers": calibration.layers, "profile": calibration.gate.layers}}
    return _measures(plan, model=True, beside=asked)


def ask_gate(plan: Plan) -> list[Ask]:
    """How unlike real text windows are, by the calibration's gate."""
    return [Ask({}, inputs={"gate": [plan.calibrated_by["gate"]]})] if "gate" in plan.calibrated_by else []


def _measures(plan: Plan, *, model: bool, beside: dict[str, Any] | None = None) -> list[Ask]:
    scorer = resolved_scorer(plan.scorer)
    if beside is not None:
        scorer = scorer.model_copy(update={"beside": BesideConfig.model_validate(beside)})
    resolved = model_of(plan)
    asks = []
    for name in scorer.beside.names:
        needs = scorer.beside.needs_of(name, plan.config.window.length)
        if needs.model != model or (beside is None and name == "text"):  # every run has the columns of the text
            continue
        identity = [resolved.digest] if model else []
        environment = {"model": scorer.model, "device": scorer.device, "batch_tokens": scorer.batch_tokens}
        asks.append(
            Ask(
                measure_key_config(scorer, name, needs),
                # The tokenizer counts where the text is read that the tokens stand for.
                [*identity, *([resolved.tokenizer_digest] if needs.text else [])],
                environment,
                label=f" {name}",
            )
        )
    return asks


def ask_rank(plan: Plan) -> list[Ask]:
    """Rank all documents, and select from them."""
    select, gate = plan.config.select, plan.gate
    config = select.model_dump()
    if gate is not None and select.gate != "off":
        rules = gate.model_dump(include={"slope", "lean", "penalty", "start", "threshold"})
        config[GATE_RULES] = rules if select.gate is None else {**rules, "threshold": select.gate}
    addresses = {"addresses": plan.addresses} if select.reads_documents else {}
    return [Ask(config, inputs=addresses, label="all shards")]


def ask_exports(plan: Plan) -> list[Ask]:
    """One export a format."""
    return [
        Ask(
            one.model_dump(exclude={"tokenizer"}),  # counts by its digest
            [
                *([model.tokenizer_digest] if isinstance(one, TokenExport) else []),
                *([made_by] if (made_by := distribution_of(one.format)) else []),
            ],
            {"model": model.reference},
            {"addresses": plan.addresses},
            one.format,
        )
        for one, model in zip(plan.exports, plan.tokenizers, strict=True)
    ]


def ask_card(plan: Plan) -> list[Ask]:
    """The dataset card, which also tells of the allocation and of what was not scored."""
    model = model_of(plan)
    about: dict[str, Any] = {
        "run": plan.config.model_dump(mode="json"),
        "model": {"reference": model.reference, "digest": model.digest},
        "versions": versions(),
    }
    if plan.calibration and asked.calibrates(plan.config):
        about["calibration"] = told(plan.calibration)
    about["config_sha256"] = config_sha256(about["run"])
    return [Ask(about, label="dataset card")]


def ask_publish(plan: Plan) -> list[Ask]:
    """Publish what was exported."""
    publish = plan.config.publish
    return [Ask(publish.model_dump(), label=publish.to)] if publish else []


def model_of(plan: Plan) -> ResolvedModel:
    """The model of a run that has a stage which needs one."""
    assert plan.model is not None, "a stage that needs the model is asked for only where there is one"
    return plan.model
