"""The model of a process: on which device and in which precision it runs, loaded once, with turns to use it.

Nothing here imports torch before a window is really to be scored.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ladm.tasks.cores import cores
from ladm.tasks.errors import ModelError
from ladm.tasks.models.resolve import ResolvedModel
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.processor import multiplies_bfloat16
from ladm.tasks.tokenizing.decoding import Decode, decoder_of
from ladm.tasks.tokenizing.tokenizer import tokenizer_of

if TYPE_CHECKING:
    from ladm.tasks.scorers.model_turns import Turns

# One model serves a process; two threads must not load it twice.
_model_lock = threading.Lock()


def accelerator() -> str:
    """What `device: auto` means here: `cuda` if there is an NVIDIA GPU, on a Mac `mps` if PyTorch can use it, or `cpu`.

    Told without importing torch, but on a Mac, where only it knows.
    """
    from importlib.metadata import version  # noqa: PLC0415

    if sys.platform == "darwin":
        import torch  # noqa: PLC0415

        return "mps" if torch.backends.mps.is_available() else "cpu"
    has_driver = Path("/dev/nvidiactl").exists()
    return "cuda" if has_driver and "+cpu" not in version("torch") else "cpu"


def check_device(name: str) -> None:
    """Refuse a `scorer.device` that is asked for by name and is not on this machine.

    Raises:
        ConfigError: One line that names the field and the fix.
    """
    if name not in ("auto", "cpu"):
        from ladm.tasks.scorers.devices import device_named  # noqa: PLC0415  (torch, which alone knows)

        device_named(name)


def _device(config: LadmConfig) -> str:
    return accelerator() if config.device == "auto" else config.device


def resolved_scorer(config: LadmConfig) -> LadmConfig:
    """The scorer with `auto` replaced: bfloat16 on a GPU, float32 elsewhere. The precision is part of the key."""
    device, dtype = _device(config), config.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    return config.model_copy(update={"device": device, "dtype": dtype})


def in_fast_precision(config: LadmConfig) -> LadmConfig:
    """A scorer that ranks by a calibration: `dtype: auto` is bfloat16 on a CPU that multiplies in it.

    What such a scorer ranks stays as it is in float32 (`benchmarks/precision.py`). A formula alone is left in float32,
    to be exact.
    """
    fast = config.dtype == "auto" and _device(config) == "cpu" and multiplies_bfloat16()
    return config.model_copy(update={"dtype": "bfloat16"}) if fast else config


@lru_cache(maxsize=1)
def _calculator(resolved: ResolvedModel, device: str, dtype: str, head: bool, rounded: bool) -> Any:
    from ladm.tasks.models.resolve import check_content  # noqa: PLC0415
    from ladm.tasks.scorers import attention  # noqa: F401, PLC0415  (its function is what the model is to call)
    from ladm.tasks.scorers.calculator import load_calculator  # noqa: PLC0415  (torch; not needed when all is cached)
    from ladm.tasks.scorers.rounding import round_to_bfloat16  # noqa: PLC0415

    check_content(resolved)
    calculator = load_calculator(
        resolved.path, LadmConfig.model_validate({"device": device, "dtype": dtype}), head=head
    )
    if rounded:
        round_to_bfloat16(calculator.model)
    return calculator


def text_reader(reference: str, digest: str | None) -> Callable[[npt.NDArray[np.integer]], str] | None:
    """Decodes token ids by the model's own tokenizer; None where the model has none."""
    if digest is None:
        return None
    return _decoder(reference, digest)


@lru_cache(maxsize=4)
def _decoder(reference: str, digest: str) -> Decode:
    return decoder_of(tokenizer_of(reference, digest))


@lru_cache
def _turns(on_cpu: bool) -> Turns:
    import torch  # noqa: PLC0415

    from ladm.tasks.scorers.model_turns import AT_ONCE_ON_CPU, Turns  # noqa: PLC0415

    if torch.get_num_threads() > cores():  # PyTorch knows of affinity, and not of cgroups
        torch.set_num_threads(cores())
    return Turns(torch.get_num_threads(), AT_ONCE_ON_CPU if on_cpu else 1)


def calculator_for(config: LadmConfig, digest: str, *, head: bool = False, rounded: bool = False) -> tuple[Any, Turns]:
    """The process's one calculator, loaded at the first call, and what hands out turns with it.

    `digest` is the model's when the run began; a model that changed since is our own mistake to go on with. `head`
    asks for the language-model head as well, `rounded` for one that rounds to bfloat16 (`rounding.py`).
    """
    from ladm.tasks.models.resolve import resolve_model  # noqa: PLC0415

    resolved = resolve_model(config.model)
    if resolved.digest != digest:
        raise ModelError(f"scorer.model: {config.model!r} changed during the run; run the same command again")
    with _model_lock:
        calculator = _calculator(resolved, config.device, config.dtype, head, rounded)
        return calculator, _turns(calculator.device.type == "cpu")
