"""The states of a layer, kept from a pass: of every architecture, and of no other thread's."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import SHAPE, windows
from transformers import (
    AutoModel,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Olmo2Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from ladm.tasks.errors import ModelError
from ladm.tasks.scorers import states
from ladm.tasks.scorers.attention import one_pass
from ladm.tasks.scorers.calculator import load_calculator, token_ids
from ladm.tasks.scorers.distance_profile import profile_plan
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.segments import segments_of

LENGTH = 301
PLAN = profile_plan(LENGTH)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(LlamaConfig(**SHAPE), id="llama"),
        pytest.param(Qwen2Config(**SHAPE), id="qwen2"),
        pytest.param(Qwen3Config(**SHAPE), id="qwen3"),
        pytest.param(Olmo2Config(**SHAPE), id="olmo2"),
        pytest.param(GPTNeoXConfig(**SHAPE), id="gpt-neox"),
        pytest.param(Gemma2Config(**SHAPE, attn_logit_softcapping=None, sliding_window=LENGTH), id="gemma2"),
    ],
)
def test_states_are_what_the_attention_of_the_layer_gets(config: PreTrainedConfig, tmp_path: Path) -> None:
    folder = tiny_models.save(config, tmp_path / "model")
    calculator = load_calculator(folder, LadmConfig(device="cpu", dtype="float32"))
    ids_BL = token_ids(calculator, windows(2, LENGTH))
    found = one_pass(calculator, {PLAN: [2]}, ids_BL, states_of=1)
    assert found.states is not None
    assert found.states.shape == (2, segments_of(LENGTH), SHAPE["hidden_size"])
    # The same model, plain: what goes into the attention of layer 1.
    plain, kept = AutoModel.from_pretrained(folder, attn_implementation="eager").eval(), []
    for module in plain.modules():
        if type(module).__name__.endswith("Attention") and module.layer_idx == 1:
            hook = lambda _, args, kwargs: kept.append(kwargs.get("hidden_states", args[0] if args else None))  # noqa: E731
            module.register_forward_pre_hook(hook, with_kwargs=True)
    with torch.inference_mode():
        plain(input_ids=ids_BL)
    size = LENGTH // segments_of(LENGTH)
    expected = kept[0][:, size : 2 * size].mean(dim=1).numpy()
    np.testing.assert_allclose(found.states[:, 1], expected, rtol=1e-4, atol=1e-5)
    first = kept[0][:, 1:size].mean(dim=1).numpy()
    np.testing.assert_allclose(found.states[:, 0], first, rtol=1e-4, atol=1e-5, err_msg="without the sink")


def test_keeping_states_changes_nothing_else_and_nothing_is_kept_unasked(tmp_path: Path) -> None:
    folder = tiny_models.save(LlamaConfig(**SHAPE), tmp_path / "model")
    calculator = load_calculator(folder, LadmConfig(device="cpu", dtype="float32"))
    ids_BL = token_ids(calculator, windows(1, LENGTH))
    with_states = one_pass(calculator, {PLAN: [2]}, ids_BL, states_of=0)
    without = one_pass(calculator, {PLAN: [2]}, ids_BL)
    assert without.states is None
    np.testing.assert_array_equal(with_states.pfs[PLAN], without.pfs[PLAN])


def test_a_layer_that_cannot_be_watched_is_told_of(tmp_path: Path) -> None:
    folder = tiny_models.save(LlamaConfig(**SHAPE), tmp_path / "model")
    calculator = load_calculator(folder, LadmConfig(device="cpu", dtype="float32"))
    with pytest.raises(ModelError, match="no states of this model's layer 9 can be read; set layers: all"):
        one_pass(calculator, {PLAN: [1]}, token_ids(calculator, windows(1, LENGTH)), states_of=9)


def test_another_thread_s_pass_keeps_nothing_here(tmp_path: Path) -> None:
    folder = tiny_models.save(LlamaConfig(**SHAPE), tmp_path / "model")
    calculator = load_calculator(folder, LadmConfig(device="cpu", dtype="float32"))
    one, other = (token_ids(calculator, windows(2, LENGTH)[[place]]) for place in (0, 1))
    with states.keeping(1) as kept:
        assert kept is not None
        thread = threading.Thread(target=lambda: one_pass(calculator, {PLAN: [2]}, other))
        thread.start()
        thread.join()
        assert kept.found is None
    assert one_pass(calculator, {PLAN: [2]}, one, states_of=1).states is not None
