"""Reading the calculator's attention, through a function registered with transformers, and its probabilities of tokens.

`AttentionInterface.register` lets a model of any architecture call our function instead of its own attention, after
the rotary embedding, with its queries, keys and values. On the layers asked for, the function also measures attention
between spans (`span_mass.py`); on the others it is plain attention. After the last layer asked for it ends the forward
pass: no output, no MLP, no later layer. transformers makes no mask for an implementation whose name it does not
know, so no L×L mask exists anywhere; what a layer does beyond plain causal attention is refused, or (sliding windows)
done by hand. A sliding layer is not measured, unless it reaches back over the whole window, which makes it full.

What one pass wants and finds travels in a context variable, so passes in different threads do not meet.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AttentionInterface

from ladm.tasks import stopping
from ladm.tasks.errors import AccountError, ModelError
from ladm.tasks.models.facts import read_call
from ladm.tasks.scorers.attention_kernels import causal_attention, sliding_attention
from ladm.tasks.scorers.calculator import IMPLEMENTATION, Calculator
from ladm.tasks.scorers.span_mass import attend_and_measure
from ladm.tasks.scorers.spans import SpanPlan
from ladm.tasks.scorers.states import keeping

Wanted = Mapping[SpanPlan, Sequence[int]]
"""Which pairs of spans to measure, and on which layers (ascending)."""


@dataclass(frozen=True)
class Passed:
    """What one forward pass of B windows found."""

    pfs: dict[SpanPlan, npt.NDArray[np.float32]]
    """plan → pfs_NBHP: N layers asked for (ascending), H heads, P pairs of the plan."""
    log_p: npt.NDArray[np.float32] | None
    """log_p_BT, natural logarithm of the probability of each target token; None where none was asked for."""
    states: npt.NDArray[np.float32] | None = None
    """state_BSD, mean of each segment in the layer asked for (`states.py`); None where none was asked for."""


@dataclass
class _Pass:
    """One forward pass: what it is to measure, and what it has measured so far."""

    wanted: Wanted
    last: int | None
    """The layer after which it may end; None: it must run to its end."""
    cut_by: SpanPlan | None = None
    """The plan by whose spans attention is cut in every layer, whatever is measured there."""
    measured: dict[tuple[SpanPlan, int], Tensor] = field(default_factory=dict)
    """(plan, layer) → pfs_BHP."""

    def plans(self, layer: int | None) -> list[SpanPlan]:
        """What to measure in a layer."""
        return [plan for plan, layers in self.wanted.items() if layer in layers]


class _Measured(Exception):  # noqa: N818  (no error: all that was asked for is there)
    """Ends a forward pass from inside its last measured layer."""


_current: contextvars.ContextVar[_Pass | None] = contextvars.ContextVar("ladm_pass", default=None)


def one_pass(
    calculator: Calculator,
    wanted: Wanted,
    ids_BL: Tensor,
    targets: Sequence[int] = (),
    cut_by: SpanPlan | None = None,
    states_of: int | None = None,
) -> Passed:
    """Puts B windows through the model once and measures all that is wanted of it.

    Args:
        calculator: the loaded model; with its head if there are targets.
        wanted: the pairs of spans to measure, and where.
        ids_BL: windows of one length.
        targets: places in the window, each at least 1, of tokens whose probability, given all tokens before them, is
            wanted. Without any, the pass ends at the last layer that is measured.
        cut_by: where attention is computed in blocks (on a CPU), cut it in every layer as this plan's spans ask, and no
            other's. Blocks differ by float rounding. So passes with one `cut_by` find the same to the last bit,
            whatever else each of them measures.
        states_of: the layer whose states are wanted; not above the last that is measured.

    Returns:
        What was found, in float32.

    Raises:
        ModelError: a layer asked for has no full causal attention, or no states, to read.
    """
    layers = sorted({layer for plan_layers in wanted.values() for layer in plan_layers})
    this_pass = _Pass(wanted, None if targets or not layers else layers[-1], cut_by)
    log_p_BT = None
    token = _current.set(this_pass)
    try:
        with torch.inference_mode(), keeping(states_of) as states:
            if targets:
                log_p_BT = _target_log_p(calculator, ids_BL.to(calculator.device), targets)
            elif layers:
                calculator.model(input_ids=ids_BL.to(calculator.device), use_cache=False)
    except _Measured:
        pass
    finally:
        _current.reset(token)
    found = {layer for _, layer in this_pass.measured}
    if unread := [layer for layer in layers if layer not in found]:
        raise ModelError(f"scorer.layers: layer {unread[0]} of this model has no attention to read; leave it out")
    pfs = {
        plan: torch.stack([this_pass.measured[plan, layer] for layer in sorted(plan_layers)]).cpu().numpy()
        for plan, plan_layers in wanted.items()
        if plan_layers
    }
    if states and states.found is None:
        raise ModelError(f"scorer.layers: no states of this model's layer {states.layer} can be read; set layers: all")
    return Passed(pfs, log_p_BT, states.found.numpy() if states and states.found is not None else None)


def _target_log_p(calculator: Calculator, ids_BL: Tensor, targets: Sequence[int]) -> npt.NDArray[np.float32]:
    """log_p_BT of the tokens at `targets`, given those before them; logits are formed for these alone."""
    assert calculator.causal is not None, "the calculator was loaded without its head"
    if min(targets) < 1:
        raise AccountError("nothing is known of the first token")
    places_T = torch.as_tensor(targets, device=ids_BL.device)
    # The model's own forward calls the head, so that whatever the architecture does to its logits is done.
    out = calculator.causal(input_ids=ids_BL, use_cache=False, logits_to_keep=places_T - 1)
    logits_BTV = out.logits.float()
    chosen_BT = logits_BTV.gather(2, ids_BL[:, places_T, None])[..., 0]
    log_p_BT: npt.NDArray[np.float32] = (chosen_BT - logits_BTV.logsumexp(-1)).cpu().numpy()
    return log_p_BT


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every attention layer; its parameters are transformers' own.

    Returns:
        (the layer's attention output out_BLHD, no attention weights)
    """
    stopping.check()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer, causal, reach, more = read_call(module, attention_mask, options)
    if not causal:
        raise ModelError("scorer.model: the model's attention is not plain causal attention; use another model")
    if more is not None:
        raise ModelError(f"scorer.model: the model's attention has {more}, which no formula covers; use another model")
    this_pass = _current.get()
    plans = this_pass.plans(layer) if this_pass else []
    if reach is not None and reach < query.shape[2]:
        if plans:
            raise ModelError(
                f"scorer.layers: layer {layer} sees only {reach} tokens back, fewer than the window has; "
                f"choose full-attention layers{_full_layers(module)}, or set window.length to {reach} or less"
            )
        return sliding_attention(query, key, value, scale, reach).transpose(1, 2).contiguous(), None
    if this_pass is None or layer is None or not (plans or this_pass.cut_by):
        return causal_attention(query, key, value, scale).transpose(1, 2).contiguous(), None
    is_last = layer == this_pass.last
    out_BHLD, found = attend_and_measure(query, key, value, scale, plans, output=not is_last, cut_by=this_pass.cut_by)
    this_pass.measured |= {(plan, layer): pfs_BHP for plan, pfs_BHP in zip(plans, found, strict=True)}
    if is_last:
        raise _Measured
    assert out_BHLD is not None
    return out_BHLD.transpose(1, 2).contiguous(), None


AttentionInterface.register(IMPLEMENTATION, _attention)


def _full_layers(module: torch.nn.Module) -> str:
    """For a message: the full-attention layers, as ` (0, 6)`, or nothing where the configuration has no list."""
    kinds = getattr(getattr(module, "config", None), "layer_types", None) or []
    full = [str(number) for number, kind in enumerate(kinds) if kind == "full_attention"]
    return f" ({', '.join(full)})" if full else ""
