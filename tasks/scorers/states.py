"""States: what the attention of a layer gets, as the mean over each segment of a window.

The layers of a model are watched from the time it is loaded: a hook before each attention keeps the mean states where
a pass asks for those of its layer, and does nothing otherwise. What a pass asks for travels in a context variable, so
passes in different threads do not meet.

Dimensions in names: B windows, L tokens, S segments, D dimensions of a state.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ladm.tasks.scorers.segments import segments_of


@dataclass
class States:
    """The states that a pass asks for."""

    layer: int
    found: Tensor | None = None
    """state_BSD, float32; None until the layer is reached, and where the model has no attention there to watch."""


_wanted: contextvars.ContextVar[States | None] = contextvars.ContextVar("ladm_states", default=None)


def watch(model: torch.nn.Module) -> None:
    """Watches the attention of every layer of a model, whatever its architecture: transformers names them all alike."""
    for module in model.modules():
        if hasattr(module, "layer_idx") and type(module).__name__.endswith("Attention"):
            module.register_forward_pre_hook(_keep, with_kwargs=True)


@contextmanager
def keeping(layer: int | None) -> Iterator[States | None]:
    """Within, a pass of this thread keeps the states of `layer`; of none where it is None."""
    states = None if layer is None else States(layer)
    token = _wanted.set(states)
    try:
        yield states
    finally:
        _wanted.reset(token)


def _keep(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    states = _wanted.get()
    if states is None or getattr(module, "layer_idx", None) != states.layer:
        return
    state_BLD = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    states.found = segment_means(state_BLD).cpu()


def segment_means(state_BLD: Tensor) -> Tensor:
    """state_BSD: the mean of each segment, in float32; what is left at the window's end has no part in it.

    Nor has the first token: attention rests on it, and its state says nothing of the text.
    """
    segments = segments_of(state_BLD.shape[1])
    size = state_BLD.shape[1] // segments
    segments_BSTD = state_BLD[:, : size * segments].reshape(len(state_BLD), segments, size, -1)
    state_BSD: Tensor = segments_BSTD.mean(dim=2, dtype=torch.float32)
    if size > 1:
        state_BSD[:, 0] = state_BLD[:, 1:size].mean(dim=1, dtype=torch.float32)
    return state_BSD
