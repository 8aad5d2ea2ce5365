"""Calibrating: what was measured of windows of the corpus and of the bundled sample becomes the run's own calibration.

For models, lengths and spans that none is shipped for. Where one is shipped for the model at another length, it is
carried over (`evaluation/carry_over.py`), unless one that is fitted on these windows alone is clearly better. It is
made once, and holds for later runs of the store with the same settings, whatever the corpus has become by then: another
one would have every window scored again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import Field

from ladm.tasks.errors import ConfigError
from ladm.tasks.evaluation import sample_windows
from ladm.tasks.evaluation.contrast_set import BROKEN, JUNK, ContrastConfig
from ladm.tasks.evaluation.fit import About
from ladm.tasks.evaluation.gate import FEWEST_WINDOWS
from ladm.tasks.evaluation.own_calibration import best_calibration, of_real_text, rows_that_rank
from ladm.tasks.evaluation.scores import Setting
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.loaded_calibration import load_calibration
from ladm.tasks.settings import Settings
from ladm.tasks.stages.scan import Measurement, ScanConfig, read_measurements
from ladm.tasks.storage.store import Store

UNLIKE = "unlike real text, or made of it"


class CalibrateConfig(Settings):
    """The `calibrate:` section: how a run makes a calibration of its own, where it does."""

    windows: int = Field(default=64, ge=2)
    """Documents whose windows it is made from, in all: half of the corpus, shared evenly among its domains, and half of
    the bundled sample. Of each, one whole window and four or five that are made of it are put through the model."""
    seed: int = Field(default=0, ge=0)
    """Draws the documents. Another seed makes another calibration, and all windows are scored again."""


class Lender(Settings):
    """The shipped calibration that lends what a run's few windows cannot tell."""

    model_digest: str
    window_length: int


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
    lender: Lender
    """Its calibration is carried over where it is of the model, else its gate lends its view of the text."""


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
    about = About(job.environment["model"], job.identity[0], job.environment["versions"])
    lender = load_calibration(None, about.model, asked.lender.model_digest, asked.lender.window_length)
    used, whole = of_real_text(setting, found, about.digest, lender)
    _check_enough(whole, asked.length)
    calibration, rows = best_calibration(setting, asked.contrast, used, about, lender)
    if calibration.gate is None:
        raise ConfigError(_too_few(len(whole), asked.length))
    of_sample = [one for one in whole if one.domain.startswith(sample_windows.DOMAINS)]
    made_from = {
        "windows": len(used),
        "documents": len({one.base for one in used}),
        "whole_windows_of_the_corpus": len(whole) - len(of_sample),
        "whole_windows_of_the_sample": len(of_sample),
        "windows_left_out": len(found) - len(used),
    }
    calibration = calibration.model_copy(
        update={"expected": tuple(rows), "made_from": calibration.made_from | made_from}
    )
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
    rows = rows_that_rank(calibration.expected)
    return {"made_from": calibration.made_from, "left_out": {row["contrast"]: row["auc"] for row in rows}}


def told_line(calibration: Calibration) -> str:
    """The same in a line."""
    made, worth = calibration.made_from, told(calibration)["left_out"]
    broken = [f"{kind} {worth[kind]:.2f}" for kind in BROKEN if kind in worth]
    junk = [auc for kind, auc in worth.items() if kind in JUNK]
    if junk:
        broken.append(f"junk {sum(junk) / len(junk):.2f}")
    carried = made.get("carried_from", 0)
    how = f"carried over from the one shipped for {carried:,} tokens by" if carried else "made from"
    return (
        f"calibrate: {how} {made.get('windows', 0)} windows, {made.get('whole_windows_of_the_corpus', 0)} whole "
        f"ones of the corpus and {made.get('whole_windows_of_the_sample', 0)} of the bundled sample; whole documents "
        f"that it had not seen scored above others: {', '.join(broken) or 'not measured'} (1 is always, 0.5 is chance)"
    )


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


STAGE = Stage(name="calibrate", version="5", compute=calibrate, unkeyed=("measurements",))
