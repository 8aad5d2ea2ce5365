"""The devices of this machine, as PyTorch sees them."""

from __future__ import annotations

import os
import warnings

import torch

from ladm.tasks.errors import ConfigError


def device_named(name: str) -> torch.device:
    """The device that `scorer.device` names; `auto` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ConfigError: it is not on this machine.
    """
    with warnings.catch_warnings():  # of a driver that does not fit: the line that refuses is enough
        warnings.simplefilter("ignore")
        there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    device = torch.device(name)
    if not there[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"scorer.device: {name} is not on this machine; set it to auto or cpu")
    return device


def visible_gpus() -> list[str]:
    """Of each GPU that this process sees, what `CUDA_VISIBLE_DEVICES` is to be for a process that sees it alone."""
    there = torch.cuda.device_count()
    named = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return named[:there] if named else [str(number) for number in range(there)]
