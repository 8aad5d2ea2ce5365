"""Models of other architectures through the same hook: which layers are scored, against eager attention; refusals."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ladm_reference as reference
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_models
from conftest import Answer, Corpus, run_arguments
from tiny_models import SHAPE, VOCABULARY, windows
from transformers import (
    BertConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    JambaConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Olmo2Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    T5Config,
)

from ladm.tasks.errors import ModelError
from ladm.tasks.models.facts import ModelFacts, model_facts
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.scorers.calculator import load_calculator
from ladm.tasks.scorers.ladm import LadmConfig, layers_left_out, measured_layers
from ladm.tasks.scorers.window_scores import score_windows

Cli = Callable[..., Answer]
CONFIG = LadmConfig(span=8, d_afs=2, d_cds=3, device="cpu")
LENGTH = 301
FOUR_LAYERS: dict[str, Any] = {**SHAPE, "num_hidden_layers": 4}
MIXED = {"sliding_window": 50, "layer_types": ["sliding_attention", "full_attention"] * 2}
FEW_EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
EYES = {
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
IMAGES = {"image_token_index": 96, "boi_token_index": 95, "eoi_token_index": 94, "mm_tokens_per_image": 4}


@pytest.fixture
def facts_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], ModelFacts]:
    """The facts of the model in a folder, found out anew: the cache is the test's own."""
    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "cache"))
    return lambda folder: model_facts(resolve_model(str(folder)))


@pytest.mark.parametrize(
    ("config", "layers", "left_out"),
    [
        pytest.param(LlamaConfig(**SHAPE), [0, 1, 2], [], id="llama"),
        pytest.param(Qwen2Config(**SHAPE), [0, 1, 2], [], id="qwen2"),
        pytest.param(Qwen2Config(**FOUR_LAYERS, **MIXED, use_sliding_window=True), [1, 3], [0, 2], id="qwen2-sliding"),
        pytest.param(Qwen3Config(**SHAPE), [0, 1, 2], [], id="qwen3"),
        pytest.param(MistralConfig(**SHAPE, sliding_window=None), [0, 1, 2], [], id="mistral"),
        pytest.param(MistralConfig(**SHAPE, sliding_window=LENGTH), [0, 1, 2], [], id="mistral-reaching-far-enough"),
        pytest.param(
            Gemma3TextConfig(**FOUR_LAYERS, **MIXED, query_pre_attn_scalar=16), [1, 3], [0, 2], id="gemma3-text"
        ),
        pytest.param(
            Gemma3Config(text_config={**FOUR_LAYERS, **MIXED}, vision_config=EYES, **IMAGES),
            [1, 3],
            [0, 2],
            id="gemma3-with-vision",
        ),
        pytest.param(GPTNeoXConfig(**SHAPE), [0, 1, 2], [], id="gpt-neox"),
        pytest.param(Olmo2Config(**SHAPE), [0, 1, 2], [], id="olmo2"),
        pytest.param(
            # Its sliding layers pass the window to the mask alone, not to the attention function.
            Qwen2MoeConfig(**FOUR_LAYERS, **MIXED, **FEW_EXPERTS, use_sliding_window=True),
            [1, 3],
            [0, 2],
            id="qwen2-moe-sliding",
        ),
    ],
)
def test_scores_are_those_of_eager_attention(
    config: PreTrainedConfig,
    layers: list[int],
    left_out: list[int],
    tmp_path: Path,
    facts_of: Callable[[Path], ModelFacts],
) -> None:
    folder = tiny_models.save(config, tmp_path / "model")
    facts = facts_of(folder)
    assert measured_layers(CONFIG, facts, LENGTH) == layers
    assert layers_left_out(CONFIG, facts, layers) == left_out
    assert (facts.max_positions, facts.vocab_size) == (2048, VOCABULARY)

    chosen = CONFIG.model_copy(update={"layers": tuple(layers)})
    ids_BL = windows(2, LENGTH)
    for score, ids_L in zip(score_windows(load_calculator(folder, chosen), chosen, ids_BL), ids_BL, strict=True):
        attentions = reference.eager_attentions(folder, ids_L)
        expected = [reference.published(attentions[layer], 8, 2, 3) for layer in layers]
        assert score.cds_per_layer == pytest.approx(expected, rel=1e-4)
        assert score.layers == layers


def test_a_hybrid_is_scored_by_its_attention_layers(tmp_path: Path, facts_of: Callable[[Path], ModelFacts]) -> None:
    blocks = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 4, "expert_layer_offset": 3}
    folder = tiny_models.save(JambaConfig(**FOUR_LAYERS, **blocks, num_experts=2, pad_token_id=0), tmp_path / "jamba")
    layers = measured_layers(CONFIG, facts_of(folder), LENGTH)
    assert layers == [1, 3]
    chosen = CONFIG.model_copy(update={"layers": tuple(layers)})
    ids_BL = windows(1, LENGTH)
    (score,) = score_windows(load_calculator(folder, chosen), chosen, ids_BL)
    attentions = reference.eager_attentions(folder, ids_BL[0])  # of the attention layers alone
    expected = [reference.published(attention_HLL, 8, 2, 3) for attention_HLL in attentions]
    assert score.cds_per_layer == pytest.approx(expected, rel=1e-4)


def test_the_scorer_itself_refuses_sliding_layers(tmp_path: Path) -> None:
    folder = tiny_models.save(MistralConfig(**SHAPE, sliding_window=LENGTH - 1), tmp_path / "mistral")
    with pytest.raises(ModelError, match=r"^scorer\.layers: layer 0 sees only 300 tokens back"):
        score_windows(load_calculator(folder, CONFIG), CONFIG, windows(1, LENGTH))
    folder = tiny_models.save(Gemma3TextConfig(**FOUR_LAYERS, **MIXED), tmp_path / "gemma3")
    with pytest.raises(ModelError, match=r"^scorer\.layers: layer 0 .* choose full-attention layers \(1, 3\)"):
        score_windows(load_calculator(folder, CONFIG), CONFIG, windows(1, LENGTH))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Gemma2Config(**SHAPE), "is a gemma2 model whose attention has soft-capped logits, which no formula covers"),
        (
            GptOssConfig(**SHAPE, num_local_experts=2, num_experts_per_tok=1),
            "is a gpt_oss model whose attention has attention sinks, which no formula covers",
        ),
        (
            Llama4TextConfig(**FOUR_LAYERS, intermediate_size_mlp=48, num_local_experts=2, attention_chunk_size=50),
            "is a llama4_text model whose attention has layers of chunked attention, which no formula covers",
        ),
    ],
)
def test_attention_that_no_formula_covers_is_refused_before_and_in_scoring(
    config: PreTrainedConfig, says: str, tmp_path: Path, facts_of: Callable[[Path], ModelFacts]
) -> None:
    folder = tiny_models.save(config, tmp_path / "model")
    with pytest.raises(ModelError, match=f"^scorer.model: .*{says}") as refused:
        facts_of(folder)
    assert "\n" not in str(refused.value)
    with pytest.raises(ModelError, match=says.partition(" whose ")[2].replace("attention", "the model's attention", 1)):
        score_windows(load_calculator(folder, CONFIG), CONFIG, windows(1, LENGTH))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2), "is a mamba model: it has no attent"),
        (BertConfig(**SHAPE), r"is an encoder model \(bert\): its attention is not causal"),
        (
            T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4),
            r"is an encoder-decoder model \(t5\): it has no causal attention over one text",
        ),
    ],
)
def test_models_without_causal_attention_are_refused_before_any_work(
    config: PreTrainedConfig, says: str, tmp_path: Path, tiny_model: Path, corpus: Corpus, ladm: Cli
) -> None:
    folder = with_tokenizer(tiny_models.save(config, tmp_path / "model"), tiny_model)
    answer = ladm(*run_arguments(corpus, tmp_path / "store", f"scorer.model={folder}"))
    assert (answer.code, answer.out) == (2, "")
    assert re.search(rf"^ladm: scorer\.model: .*{says}.*\n\Z", answer.err, re.MULTILINE), answer.err
    assert not (tmp_path / "store" / "ingest").exists()


def test_an_encoder_is_refused_by_the_scorer_too(tmp_path: Path) -> None:
    folder = tiny_models.save(BertConfig(**SHAPE), tmp_path / "bert")
    with pytest.raises(ModelError, match="not plain causal attention"):
        score_windows(load_calculator(folder, CONFIG), CONFIG, windows(1, LENGTH))


def with_tokenizer(folder: Path, tiny_model: Path) -> Path:
    for file in tiny_model.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def gemma(tmp_path: Path, tiny_model: Path) -> Path:
    """Sliding layers 0 and 2 of reach 50, full layers 1 and 3; the tokenizer of `tiny_model`."""
    vocabulary = json.loads((tiny_model / "config.json").read_text())["vocab_size"]
    config = Gemma3TextConfig(**{**FOUR_LAYERS, "vocab_size": vocabulary}, **MIXED)
    return with_tokenizer(tiny_models.save(config, tmp_path / "gemma3"), tiny_model)


def test_a_run_leaves_sliding_layers_out_and_says_so(tmp_path: Path, gemma: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    answer = ladm(*run_arguments(corpus, store, f"scorer.model={gemma}"), "--until", "score")
    assert answer.code == 0, answer.err
    line = f"scorer.layers: all leaves out layers 0,2 of '{gemma}': they do not see all 256 tokens of a window"
    assert answer.err.count(line) == 1
    assert answer.record["model"]["layers_left_out"] == [0, 2]
    on_disk = json.loads((store / "runs" / answer.record["run_id"] / "run.json").read_text())
    assert on_disk["model"] == answer.record["model"]
    scored = [shard["path"] for job in answer.record["shards"] if job["stage"] == "score" for shard in job["shards"]]
    assert [pq.read_table(store / path)["layers"].to_pylist() for path in scored] == [[[1, 3]] * 4, [[1, 3]] * 3]

    named = ladm(*run_arguments(corpus, store, f"scorer.model={gemma}", "scorer.layers=3"), "--until", "score")
    assert named.code == 0, named.err
    assert named.record["model"]["layers_left_out"] == []  # nothing was asked for and left out
    assert "leaves out" not in named.err
    sliding = ladm(*run_arguments(corpus, store, f"scorer.model={gemma}", "scorer.layers=1-2"))
    assert (sliding.code, sliding.out) == (2, "")
    assert "scorer.layers: layers 2 of " in sliding.err
    assert "set scorer.layers=1,3" in sliding.err


def test_the_score_command_leaves_sliding_layers_out_of_windows_longer_than_their_reach(
    tmp_path: Path, gemma: Path, ladm: Cli
) -> None:
    path = tmp_path / "windows.parquet"
    pq.write_table(pa.table({"input_ids": [np.arange(length) % 90 for length in (50, 51, 200)]}), path)
    command = ["score", path, "--model", gemma, "--span", "4", "--d-afs", "2", "--d-cds", "2", "--format", "json"]
    answer = ladm(*command)
    assert answer.code == 0, answer.err
    assert [json.loads(line)["layers"] for line in answer.out.splitlines()] == [[0, 1, 2, 3], [1, 3], [1, 3]]
    assert answer.err.count("leaves out layers 0,2 of ") == 1
    assert "all 200 tokens of a window" in answer.err
    sliding = ladm(*command, "--layers", "0,1")
    assert (sliding.code, sliding.out) == (2, "")
    assert sliding.err.startswith("ladm: scorer.layers: layers 0 of ")
