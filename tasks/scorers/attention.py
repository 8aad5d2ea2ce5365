"""The calculator model: loading it, and reading its attention through a function registered with transformers.

`AttentionInterface.register` lets a model of any architecture call our function instead of its own attention, after
the rotary embedding, with its queries, keys and values. On the layers asked for, the function also measures attention
between spans (`focus.py`); on the others it is plain attention. After the last layer asked for it ends the forward
pass: no output, no MLP, no later layer. transformers makes no mask for an implementation whose name it does not
know, so no L×L mask exists anywhere; what a layer does beyond plain causal attention is refused, or (sliding windows)
done by hand. A sliding layer is not measured, unless it reaches back over the whole window, which makes it full.

What one pass wants and finds travels in a context variable, so passes in different threads do not meet.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AttentionInterface, AutoModel

from tasks.errors import ConfigError, ModelError
from tasks.model_facts import quiet_transformers, read_call
from tasks.scorers.focus import attend_and_measure, causal_attention, sliding_attention
from tasks.scorers.ladm import (
    LadmConfig,
    SpanPlan,
    WindowScore,
    check_window_length,
    dependency_scores,
    grid_plan,
    scoring_plan,
    wanted_layers,
)

IMPLEMENTATION = "ladm"
"""The name under which transformers knows our attention function."""

_BATCH_TOKENS_ON_CPU = 4_096
_BATCH_TOKENS_ELSEWHERE = 65_536


@dataclass
class Calculator:
    """A loaded model, ready to score windows."""

    model: Any
    """The transformers base model: decoder layers, no language-model head."""
    path: Path
    config: LadmConfig
    device: torch.device
    dtype: torch.dtype
    n_layers: int
    max_positions: int | None
    """The longest window, in tokens, that the model's own configuration provides for; None where it names none."""
    most_windows: int | None = None
    """Windows a batch may hold, once the device has run out of memory with more."""


@dataclass
class _Pass:
    """One forward pass: what it is to measure, and what it has measured so far."""

    plan: SpanPlan
    layers: list[int]
    measured: dict[int, Tensor] = field(default_factory=dict)
    """Layer → pfs_BP."""


class _Measured(Exception):  # noqa: N818  (no error: all that was asked for is there)
    """Ends a forward pass from inside its last measured layer."""


_current: contextvars.ContextVar[_Pass | None] = contextvars.ContextVar("ladm_pass", default=None)


def load_calculator(path: Path, config: LadmConfig) -> Calculator:
    """Loads the model in folder `path` (config.json and safetensors), without its head, running none of its own code.

    Raises:
        ConfigError: `scorer.device` is not on this machine, or `scorer.layers` names a layer that the model lacks.
        ModelError: there is no such model in the folder, or weights are missing from it.
    """
    device = _device(config.device)
    dtype = _dtype(config.dtype, device)
    try:
        with quiet_transformers():
            model, report = AutoModel.from_pretrained(
                path,
                dtype=dtype,
                attn_implementation=IMPLEMENTATION,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"scorer.model: {path} cannot be loaded: {' '.join(str(error).split())}") from error
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        missing = sorted(report["missing_keys"])
        raise ModelError(f"scorer.model: {path} lacks {len(missing)} weights, the first {missing[0]}; fetch it again")
    shape = model.config.get_text_config()
    wanted_layers(config, shape.num_hidden_layers)
    return Calculator(
        model=model.eval().to(device),
        path=path,
        config=config,
        device=device,
        dtype=dtype,
        n_layers=shape.num_hidden_layers,
        max_positions=getattr(shape, "max_position_embeddings", None),
    )


def score_windows(
    calculator: Calculator, config: LadmConfig, input_ids_BL: npt.NDArray[np.integer] | Tensor
) -> list[WindowScore]:
    """Scores B windows of one length L, as many at a time as `scorer.batch_tokens` allows.

    A window's score depends on the other windows by float rounding at most. When the device runs out of memory the
    batch is halved, down to one window.

    Raises:
        ConfigError: L is too short for a query span, or a layer asked for is not in the model.
        ModelError: a token id is not in the model's vocabulary, or a layer asked for has no full causal attention
            (under `layers: all`, every layer is asked for: `measured_layers` tells those that have).
        torch.OutOfMemoryError: one window alone is too much.
    """
    ids_BL = _token_ids(calculator, input_ids_BL)
    count, length = ids_BL.shape
    check_window_length(config, length)
    layers = wanted_layers(config, calculator.n_layers)
    plan = scoring_plan(config, length)
    scores: list[WindowScore] = []
    while len(scores) < count:
        size = _windows_at_once(calculator, config, length)
        try:
            pfs_NBP = _measure(calculator, plan, layers, ids_BL[len(scores) : len(scores) + size])
        except torch.OutOfMemoryError:
            size = min(size, count - len(scores))
            if size == 1:
                raise
            calculator.most_windows = size // 2
            continue
        cds_BN = np.stack([dependency_scores(config, plan, pfs_BP) for pfs_BP in pfs_NBP], axis=1)
        scores += [WindowScore(float(cds_N.mean()), cds_N.tolist(), layers) for cds_N in cds_BN]
    return scores


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
    ids_BL = _token_ids(calculator, torch.as_tensor(ids_L)[None])
    plan = grid_plan(config, ids_BL.shape[1])
    pfs_P = _measure(calculator, plan, wanted_layers(chosen, calculator.n_layers), ids_BL).mean(axis=0)[0]
    size = ids_BL.shape[1] // config.span
    pfs_NN = np.full((size, size), np.nan, dtype=np.float32)
    done = 0
    for query in plan.queries:
        for start in query.key_starts:
            pfs_NN[query.start // config.span, start // config.span] = pfs_P[done]
            done += 1
    return pfs_NN


def _measure(calculator: Calculator, plan: SpanPlan, layers: list[int], ids_BL: Tensor) -> npt.NDArray[np.float32]:
    """pfs_NBP of N layers (ascending), B windows and P span pairs, by one forward pass up to the last of the layers."""
    this_pass = _Pass(plan, layers)
    token = _current.set(this_pass)
    try:
        with torch.inference_mode():
            calculator.model(input_ids=ids_BL.to(calculator.device), use_cache=False)
    except _Measured:
        pass
    finally:
        _current.reset(token)
    unread = [layer for layer in layers if layer not in this_pass.measured]
    if unread:
        raise ModelError(f"scorer.layers: layer {unread[0]} of this model has no attention to read; leave it out")
    pfs_NBP: npt.NDArray[np.float32] = torch.stack([this_pass.measured[layer] for layer in layers]).cpu().numpy()
    return pfs_NBP


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
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer, causal, reach, more = read_call(module, attention_mask, options)
    if not causal:
        raise ModelError("scorer.model: the model's attention is not plain causal attention; use another model")
    if more is not None:
        raise ModelError(f"scorer.model: the model's attention has {more}, which no formula covers; use another model")
    this_pass = _current.get()
    if reach is not None and reach < query.shape[2]:
        if this_pass is not None and layer in this_pass.layers:
            raise ModelError(
                f"scorer.layers: layer {layer} sees only {reach} tokens back, fewer than the window has; "
                f"choose full-attention layers{_full_layers(module)}, or set window.length to {reach} or less"
            )
        return sliding_attention(query, key, value, scale, reach).transpose(1, 2).contiguous(), None
    if this_pass is None or layer is None or layer not in this_pass.layers:
        return causal_attention(query, key, value, scale).transpose(1, 2).contiguous(), None
    is_last = layer == this_pass.layers[-1]
    out_BHLD, pfs_BP = attend_and_measure(query, key, value, scale, this_pass.plan, output=not is_last)
    this_pass.measured[layer] = pfs_BP
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


def _device(name: str) -> torch.device:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    device = torch.device(name)
    if not there[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"scorer.device: {name} is not on this machine; set it to auto or cpu")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _token_ids(calculator: Calculator, input_ids_BL: npt.NDArray[np.integer] | Tensor) -> Tensor:
    """The windows as an int64 tensor; an id outside the vocabulary would kill a CUDA process, so it is refused here."""
    ids_BL = torch.as_tensor(input_ids_BL).long()
    assert ids_BL.ndim == 2, "windows of one length, one a row"
    vocabulary = calculator.model.get_input_embeddings().num_embeddings
    if ids_BL.numel() and (int(ids_BL.min()) < 0 or int(ids_BL.max()) >= vocabulary):
        wrong = ids_BL[(ids_BL < 0) | (ids_BL >= vocabulary)][0]
        raise ModelError(
            f"input_ids: token {int(wrong)} is not in the calculator's vocabulary of {vocabulary}; "
            "tokenize with the calculator's own tokenizer"
        )
    return ids_BL


def _windows_at_once(calculator: Calculator, config: LadmConfig, length: int) -> int:
    tokens = config.batch_tokens or (
        _BATCH_TOKENS_ON_CPU if calculator.device.type == "cpu" else _BATCH_TOKENS_ELSEWHERE
    )
    return max(1, min(tokens // length, calculator.most_windows or tokens))
