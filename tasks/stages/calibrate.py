"""Calibrating: what was measured of windows of the corpus and of the bundled sample becomes the run's own calibration.

For models, lengths and spans that none is shipped for. It is made once, and holds for later runs of the store with the
same settings, whatever the corpus has become by then: another one would have every window scored again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from pydantic import Field

from ladm.tasks.errors import ConfigError
from ladm.tasks.evaluation import sample_windows
from ladm.tasks.evaluation.contrast_set import BROKEN, CALIBRATE, JUNK, WHOLE, ContrastConfig
from ladm.tasks.evaluation.fit import About, calibration_of, profiled_layers
from ladm.tasks.evaluation.gate import FEWEST_WINDOWS, Windows
from ladm.tasks.evaluation.reference import real_text
from ladm.tasks.evaluation.scores import Choice, Floats, Scores, Setting, calibrated_scores, features_of, named_layers
from ladm.tasks.evaluation.table import ALL_DOMAINS, table
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.settings import Settings
from ladm.tasks.stages.scan import Measurement, ScanConfig, read_measurements
from ladm.tasks.storage.store import Store

UNLIKE = "unlike real text, or made of it"
HOLDS_NOTHING_BACK = 1e9
"""The threshold of a run's own gate: it rests on few windows, so what is unlike real text loses in rank, and no more.
`select.gate` sets another."""
FOLDS = 4
"""Parts of the documents that are left out in turn, to tell what the calibration is worth."""


class CalibrateConfig(Settings):
    """The `calibrate:` section: how a run makes a calibration of its own, where it does."""

    windows: int = Field(default=64, ge=2)
    """Documents whose windows it is made from, in all: half of the corpus, shared evenly among its domains, and half of
    the bundled sample. Of each, one whole window and four or five that are made of it are put through the model."""
    seed: int = Field(default=0, ge=0)
    """Draws the documents. Another seed makes another calibration, and all windows are scored again."""


class FitConfig(Settings):
    """What a calibration is fitted with."""

    scan: ScanConfig
    """What was measured."""
    length: int
    """Tokens of a window."""
    n_layers: int
    """Layers of the model."""
    contrast: ContrastConfig
    """How the windows were made."""


def calibrate(job: Job, store: Store, key: str) -> Outcome:
    """Fit a calibration, and test it on documents that are left out.

    Inputs: the measurements (`scan.py`) of a set of windows that was made to calibrate by. The result is one file, the
    calibration as JSON. Windows of the corpus that are unlike real text have no part in it, nor what was made of them.

    Raises:
        ConfigError: There are too few windows of real text.
    """
    asked = FitConfig.model_validate(job.config)
    spans = asked.scan.scorer(job.environment["model"], "cpu")
    setting = Setting(
        spans, asked.length, asked.scan.layers, asked.n_layers, asked.scan.profile_layers, asked.scan.topic_layer
    )
    found = read_measurements(store, job.all("measurements"), asked.scan, asked.scan.layers)
    used, whole = _of_real_text(setting, found)
    _check_enough(whole, asked.length)
    about = About(job.environment["model"], job.identity[0], job.environment["versions"])
    calibration = calibration_of(setting, asked.contrast, used, about)
    if calibration.gate is None:
        raise ConfigError(_too_few(len(whole), asked.length))
    rows = table(setting, used, _left_out(setting, asked.contrast, used, about), asked.contrast, CALIBRATE)
    of_sample = [one for one in whole if one.domain.startswith(sample_windows.DOMAINS)]
    made_from = {
        "windows": len(used),
        "documents": len({one.base for one in used}),
        "whole_windows_of_the_corpus": len(whole) - len(of_sample),
        "whole_windows_of_the_sample": len(of_sample),
        "windows_left_out": len(found) - len(used),
    }
    gate = calibration.gate.model_copy(update={"threshold": HOLDS_NOTHING_BACK})
    calibration = calibration.model_copy(update={"expected": tuple(rows), "made_from": made_from, "gate": gate})
    return Outcome(
        counts=Counts(received=len(found), kept=len(used), dropped={UNLIKE: len(found) - len(used)}),
        files=[store.write_file("calibrate", key, "json", orjson.dumps(calibration.model_dump(mode="json")))],
        measures={"windows": len(used)},
    )


def told(calibration: Calibration) -> dict[str, Any]:
    """What a run's record and its card tell of the calibration that the run made itself.

    `left_out` is, for each contrast, how often a whole window scored above one of that kind by a calibration that had
    not seen its document: the mean over domains.
    """
    rows = [row for row in calibration.expected if row["formula"] == "calibrated" and row["domain"] == ALL_DOMAINS]
    return {"made_from": calibration.made_from, "left_out": {row["contrast"]: row["auc"] for row in rows}}


def told_line(calibration: Calibration) -> str:
    """The same in a line."""
    made, worth = calibration.made_from, told(calibration)["left_out"]
    broken = [f"{kind} {worth[kind]:.2f}" for kind in BROKEN if kind in worth]
    junk = [auc for kind, auc in worth.items() if kind in JUNK]
    if junk:
        broken.append(f"junk {sum(junk) / len(junk):.2f}")
    return (
        f"calibrate: made from {made.get('windows', 0)} windows, {made.get('whole_windows_of_the_corpus', 0)} whole "
        f"ones of the corpus and {made.get('whole_windows_of_the_sample', 0)} of the bundled sample; whole documents "
        f"that it had not seen scored above others: {', '.join(broken) or 'not measured'} (1 is always, 0.5 is chance)"
    )


def _of_real_text(setting: Setting, found: Sequence[Measurement]) -> tuple[list[Measurement], list[Measurement]]:
    """The measurements of windows that are made of real text alone, and those of whole windows among them."""
    whole = [one for one in found if one.kind == WHOLE]
    if not whole:
        return [], []
    layers = profiled_layers(setting)
    features = np.stack([features_of(one, layers, setting.profile_layers) for one in whole])
    windows = Windows(features, [one.domain for one in whole], [one.base for one in whole])
    trusted_W = np.array([one.domain.startswith(sample_windows.DOMAINS) for one in whole])
    real_W = real_text(layers, windows, trusted_W)
    junk = {one.base for one, real in zip(whole, real_W, strict=True) if not real}
    used = [one for one in found if not junk.intersection(one.documents)]
    return used, [one for one in used if one.kind == WHOLE]


def _check_enough(whole: Sequence[Measurement], length: int) -> None:
    if len(whole) < FEWEST_WINDOWS:
        raise ConfigError(_too_few(len(whole), length))


def _too_few(windows: int, length: int) -> str:
    return (
        f"scorer.layers: no calibration is shipped for this model, window and span, and the corpus and the bundled "
        f"sample have too few documents to make one: {windows} windows of {length:,} tokens of real text, where "
        f"{FEWEST_WINDOWS} are needed; give more documents, lower window.length, or set scorer.layers=all, the "
        "published formula, by which a quarter of the selection was junk where half of the corpus was"
    )


def _left_out(setting: Setting, config: ContrastConfig, used: Sequence[Measurement], about: About) -> Scores:
    """The scores of each window by a calibration that has not seen the window of its document.

    Nothing where the rest of the documents is too few to calibrate on.
    """
    documents = sorted({one.base for one in used})
    fold_of = {document: number % FOLDS for number, document in enumerate(documents)}
    scores: dict[str, Floats] = {}
    for fold in range(FOLDS):
        out = [place for place, one in enumerate(used) if fold_of[one.base] == fold]
        rest = [one for one in used if fold_of[one.base] != fold]
        if not out or not any(one.kind == WHOLE for one in rest):
            continue
        fitted = calibration_of(setting, config, rest, about)
        if fitted.gate is None:
            continue
        found = calibrated_scores(setting, [used[place] for place in out], fitted)
        for choice, values in found.items():
            scores.setdefault(choice.formula, np.full(len(used), np.nan))[out] = values
    named, last = named_layers(setting.profile_layers), max(setting.profile_layers)
    return {Choice("ladm", formula, named, last): values for formula, values in scores.items()}


STAGE = Stage(name="calibrate", version="3", compute=calibrate, unkeyed=("measurements",))
