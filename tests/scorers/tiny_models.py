"""Tiny random models of any architecture, and random windows for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PreTrainedConfig

VOCABULARY = 97
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,  # peaked attention: near-uniform attention would hide a wrong mask
}


def save(config: PreTrainedConfig, folder: Path) -> Path:
    """Saves a random model of a configuration."""
    torch.manual_seed(0)
    AutoModel.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def windows(count: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, (count, length))
