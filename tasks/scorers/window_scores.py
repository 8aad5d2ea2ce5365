"""The scores of windows: what the formula, a calibration and the scorers beside `ladm` make of one pass of the model.

One pass serves all of them: each says what it wants of it, `attention.py` measures that, and the rest is arithmetic.

Dimensions in names: B windows, L tokens, N layers, H heads, P pairs of spans, F features of the profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ladm.tasks.errors import AccountError
from ladm.tasks.scorers.attention import Passed, one_pass
from ladm.tasks.scorers.calculator import Calculator, token_ids, windows_at_once
from ladm.tasks.scorers.calibration import Weights
from ladm.tasks.scorers.coherence import Seen, log_shares
from ladm.tasks.scorers.distance_profile import profile_features, profile_plan
from ladm.tasks.scorers.evidence import Evidence, Needs
from ladm.tasks.scorers.ladm import (
    LadmConfig,
    WindowScore,
    check_window_length,
    dependency_scores,
    grid_plan,
    scoring_plan,
    wanted_layers,
)
from ladm.tasks.scorers.registry import TextOf
from ladm.tasks.scorers.snippets import read_snippets
from ladm.tasks.scorers.spans import SpanPlan
from ladm.tasks.scorers.vocabulary import vocabulary_features


def score_windows(
    calculator: Calculator,
    config: LadmConfig,
    input_ids_BL: npt.NDArray[np.integer] | Tensor,
    weights: Weights | None = None,
    text_of: TextOf | None = None,
) -> list[WindowScore]:
    """Scores B windows of one length L, as many at a time as `scorer.batch_tokens` allows.

    A window's score depends on the other windows by float rounding at most. When the device runs out of memory the
    batch is halved, down to one window. The same pass gives each window's scores by a calibration's `weights`, by their
    names, and, as far as they can be had from it, the scores of `config.beside`. `text_of` decodes token ids,
    for those that ask for text.

    Raises:
        ConfigError: L is too short for a query span, or a layer asked for is not in the model.
        ModelError: a token id is not in the model's vocabulary, or a layer asked for has no full causal attention
            (under `layers: all`, every layer is asked for: `measured_layers` tells those that have).
        torch.OutOfMemoryError: one window alone is too much.
    """
    ids_BL = token_ids(calculator, input_ids_BL)
    length = ids_BL.shape[1]
    check_window_length(config, length)
    layers = wanted_layers(config, calculator.n_layers)
    weights, needs = weights or Weights(), config.beside.needs(length)
    wanted = Wants(config, length, layers, needs, weights)
    scores: list[WindowScore] = []
    for batch_BL, passed in _passes(calculator, config, wanted, ids_BL):
        found = wanted.read(passed)
        cds_BN = np.stack([dependency_scores(config, wanted.plan, found.mean_pfs(layer)) for layer in layers], axis=1)
        for number, ids_L in enumerate(batch_BL.numpy()):
            by_profile, coherent_E = found.scores(number, ids_L)
            beside: dict[str, dict[str, Any]] = {}
            if config.beside.names:
                beside = config.beside.measured(found.evidence(calculator, number, ids_L, text_of))
            cds_N = cds_BN[number]
            mean = float(cds_N.mean())
            scores.append(WindowScore(mean, cds_N.tolist(), layers, by_profile, coherent_E.tolist(), beside))
    return scores


def measure_windows(
    calculator: Calculator, config: LadmConfig, input_ids_BL: npt.NDArray[np.integer] | Tensor, text_of: TextOf | None
) -> list[dict[str, dict[str, Any]]]:
    """What the scorers of `config.beside` give of B windows of one length, without a score of `ladm`'s own.

    Returns:
        Of each window: scorer → column → value.

    Raises:
        As `score_windows`.
    """
    ids_BL = token_ids(calculator, input_ids_BL)
    needs = config.beside.needs(ids_BL.shape[1])
    wanted = Wants(config, ids_BL.shape[1], (), needs)
    measured: list[dict[str, dict[str, Any]]] = []
    for batch_BL, passed in _passes(calculator, config, wanted, ids_BL):
        found = wanted.read(passed)
        for number, ids_L in enumerate(batch_BL.numpy()):
            measured.append(config.beside.measured(found.evidence(calculator, number, ids_L, text_of)))
    return measured


class Wants:
    """What is wanted of a pass, for the formula, for a calibration's weights and for the scorers beside."""

    def __init__(
        self,
        config: LadmConfig,
        length: int,
        layers: Sequence[int],
        needs: Needs,
        weights: Weights | None = None,
        profiled: Sequence[int] = (),
    ) -> None:
        self.weights, self.needs = weights or Weights(), needs
        self.plan = scoring_plan(config, length)
        self.layers = sorted({*layers, *needs.layers})
        self.profiled = sorted({*self.weights.layers, *profiled, *needs.profile})
        self.profile_plan = profile_plan(length) if self.profiled else None
        self.of_a_pass: dict[SpanPlan, Sequence[int]] = {self.plan: self.layers} if self.layers else {}
        if self.profile_plan:
            self.of_a_pass[self.profile_plan] = self.profiled

    def read(self, passed: Passed) -> Found:
        """What a pass found, ready to be read."""
        return Found(self, passed)


class Found:
    """What one pass of B windows found."""

    def __init__(self, wants: Wants, passed: Passed) -> None:
        self.wants, self.log_p, self.state_BSD = wants, passed.log_p, passed.states
        self.pfs_NBHP = passed.pfs[wants.plan] if wants.layers else None
        self.profile_BNHF = self.cells_NBHP = None
        if wants.profile_plan:
            self.cells_NBHP = passed.pfs[wants.profile_plan]
            self.profile_BNHF = profile_features(wants.profile_plan, self.cells_NBHP)

    def mean_pfs(self, layer: int) -> npt.NDArray[np.float32]:
        """pfs_BP of a layer, mean over heads."""
        assert self.pfs_NBHP is not None
        mean_BP: npt.NDArray[np.float32] = self.pfs_NBHP[self.wants.layers.index(layer)].mean(axis=1)
        return mean_BP

    def profile_of(self, number: int, layers: Sequence[int]) -> npt.NDArray[np.float32]:
        """f_NHF of one window, of some layers."""
        assert self.profile_BNHF is not None
        places = [self.wants.profiled.index(layer) for layer in layers]
        profile_NHF: npt.NDArray[np.float32] = self.profile_BNHF[number][places]
        return profile_NHF

    def scores(self, number: int, ids_L: npt.NDArray[np.integer]) -> tuple[dict[str, float], npt.NDArray[np.float32]]:
        """The scores of one window by a calibration's weights, and its features of coherence; none without weights."""
        weights = self.wants.weights
        if not weights.names:
            return {}, np.zeros(0, np.float32)
        assert self.cells_NBHP is not None
        assert self.wants.profile_plan is not None
        places = [self.wants.profiled.index(layer) for layer in weights.layers]
        state_SZ = np.zeros((0, 0), np.float32) if self.state_BSD is None else self.state_BSD[number]
        seen = Seen(
            log_shares(self.wants.profile_plan, self.cells_NBHP[places, number]), vocabulary_features(ids_L), state_SZ
        )
        coherent_E = weights.coherent(self.wants.profile_plan, seen, weights.layers)
        return weights.scores(self.profile_of(number, weights.layers), coherent_E, weights.layers), coherent_E

    def evidence(
        self, calculator: Calculator, number: int, ids_L: npt.NDArray[np.integer], text_of: TextOf | None
    ) -> Evidence:
        """The evidence of one window: what the pass found, and short passes for the snippets."""
        needs = self.wants.needs
        if needs.text and not text_of:
            raise AccountError("a scorer asks for text, and there is no tokenizer")
        places = {layer: self.wants.layers.index(layer) for layer in needs.layers}
        heads = {layer: self.pfs_NBHP[place, number] for layer, place in places.items() if self.pfs_NBHP is not None}
        log_p: dict[int, float] = {}
        if self.log_p is not None:
            log_p = dict(zip(needs.targets, self.log_p[number].tolist(), strict=True))
        return Evidence(
            ids=ids_L,
            plan=self.wants.plan,
            pfs={layer: pfs_HP.mean(axis=0) for layer, pfs_HP in heads.items()},
            pfs_heads=heads,
            profile={layer: self.profile_of(number, [layer])[0] for layer in needs.profile},
            log_p=log_p,
            snippet_log_p=read_snippets(calculator, ids_L, needs.snippets),
            text=text_of(ids_L) if needs.text and text_of else "",
        )


def _passes(
    calculator: Calculator, config: LadmConfig, wants: Wants, ids_BL: Tensor
) -> Iterator[tuple[Tensor, Passed]]:
    """Put windows through the model, as many at once as is allowed, and half as many where memory runs out."""
    done, (count, length) = 0, ids_BL.shape
    while done < count:
        size = windows_at_once(calculator, config, length)
        batch_BL = ids_BL[done : done + size]
        try:
            passed = one_pass(
                calculator,
                wants.of_a_pass,
                batch_BL,
                wants.needs.targets,
                cut_by=wants.plan,
                states_of=wants.weights.states_of,
            )
        except torch.OutOfMemoryError:
            size = min(size, count - done)
            if size == 1:
                raise
            calculator.most_windows = size // 2
            continue
        yield batch_BL, passed
        done += len(batch_BL)


def span_attention(
    calculator: Calculator,
    config: LadmConfig,
    ids_L: npt.NDArray[np.integer] | Tensor,
    layer: int | None = None,
) -> npt.NDArray[np.float32]:
    """The attention mass of every span of one window on every earlier one, as a picture of the window.

    Args:
        calculator: the loaded model.
        config: the formula decides which softmax is taken and where the grid of spans begins (`grid_plan`).
        ids_L: the window's token ids.
        layer: one layer, from 0; None: the mean over `scorer.layers`.

    Returns:
        pfs_NN: row = query span, column = key span, in the order of the text, mean over heads. A row sums to at most
        `span`. NaN where a span is not measured: on later spans, and (`formula: published`) on itself.
    """
    chosen = config if layer is None else config.model_copy(update={"layers": (layer,)})
    ids_BL = token_ids(calculator, torch.as_tensor(ids_L)[None])
    plan = grid_plan(config, ids_BL.shape[1])
    passed = one_pass(calculator, {plan: wanted_layers(chosen, calculator.n_layers)}, ids_BL)
    pfs_P = passed.pfs[plan].mean(axis=(0, 2))[0]
    size = ids_BL.shape[1] // config.span
    pfs_NN = np.full((size, size), np.nan, dtype=np.float32)
    done = 0
    for query in plan.queries:
        for start in query.key_starts:
            pfs_NN[query.start // config.span, start // config.span] = pfs_P[done]
            done += 1
    return pfs_NN
