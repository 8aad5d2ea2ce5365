"""The calculator model in memory: loading it onto a device, in a precision, with or without its language-model head.

Whoever loads a model here gets one whose attention layers call `attention.py`. None of a model's own code is run, and
no pickled weights are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

from ladm.tasks.errors import AccountError, ModelError
from ladm.tasks.models.facts import quiet_transformers
from ladm.tasks.scorers.compiled_parts import compile_parts, kernels_work
from ladm.tasks.scorers.devices import device_named
from ladm.tasks.scorers.ladm import LadmConfig, wanted_layers
from ladm.tasks.scorers.mlp_chunks import mlps_in_chunks
from ladm.tasks.scorers.states import watch

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
    causal: Any = None
    """The model with its head, for scorers that need probabilities of tokens; None where it was loaded without."""


def load_calculator(path: Path, config: LadmConfig, *, head: bool = False) -> Calculator:
    """Loads the model in folder `path` (config.json and safetensors), running none of its own code.

    Args:
        path: the model's folder.
        config: device, dtype and layers are read.
        head: load the language-model head too.

    Raises:
        ConfigError: `scorer.device` is not on this machine, or `scorer.layers` names a layer that the model lacks.
        ModelError: there is no such model in the folder, or weights are missing from it.
    """
    device = device_named(config.device)
    dtype = _dtype(config.dtype, device)
    try:
        with quiet_transformers():
            loaded, report = (AutoModelForCausalLM if head else AutoModel).from_pretrained(
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
    shape = loaded.config.get_text_config()
    wanted_layers(config, shape.num_hidden_layers)
    loaded = loaded.eval().to(device)
    if dtype != torch.float32 and kernels_work(device):  # float32 is for exactness, and is left as it is
        compile_parts(loaded)
    if device.type == "cpu":
        mlps_in_chunks(loaded)
    watch(loaded)
    return Calculator(
        model=loaded.base_model if head else loaded,
        path=path,
        config=config,
        device=device,
        dtype=dtype,
        n_layers=shape.num_hidden_layers,
        max_positions=getattr(shape, "max_position_embeddings", None),
        causal=loaded if head else None,
    )


def token_ids(calculator: Calculator, input_ids_BL: npt.NDArray[np.integer] | Tensor) -> Tensor:
    """The windows as an int64 tensor; an id outside the vocabulary would kill a CUDA process, so it is refused here.

    Raises:
        ModelError: a token id is not in the model's vocabulary.
    """
    ids_BL = torch.as_tensor(input_ids_BL).long()
    if ids_BL.ndim != 2:
        raise AccountError("windows of one length, one a row")
    vocabulary = calculator.model.get_input_embeddings().num_embeddings
    if ids_BL.numel() and (int(ids_BL.min()) < 0 or int(ids_BL.max()) >= vocabulary):
        wrong = ids_BL[(ids_BL < 0) | (ids_BL >= vocabulary)][0]
        raise ModelError(
            f"input_ids: token {int(wrong)} is not in the calculator's vocabulary of {vocabulary}; "
            "tokenize with the calculator's own tokenizer"
        )
    return ids_BL


def windows_at_once(calculator: Calculator, config: LadmConfig, length: int) -> int:
    """Windows of `length` tokens to put through the model at once: what `scorer.batch_tokens` and the memory allow."""
    tokens = config.batch_tokens or (
        _BATCH_TOKENS_ON_CPU if calculator.device.type == "cpu" else _BATCH_TOKENS_ELSEWHERE
    )
    return max(1, min(tokens // length, calculator.most_windows or tokens))


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
