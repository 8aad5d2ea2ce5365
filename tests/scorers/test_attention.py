"""The calculator against plain loops over eager attention, on tiny random models made here."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ladm_reference as reference
import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import SHAPE, VOCABULARY, windows
from transformers import LlamaConfig, PreTrainedConfig

from ladm.tasks.errors import ConfigError, ModelError
from ladm.tasks.scorers import ladm as formula
from ladm.tasks.scorers import span_mass, window_scores
from ladm.tasks.scorers.attention_kernels import causal_attention, fused_kernel
from ladm.tasks.scorers.calculator import Calculator, load_calculator
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.window_scores import score_windows, span_attention

CONFIG = LadmConfig(span=8, d_afs=2, d_cds=3, device="cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads gain nothing on models this small, and on a busy machine they wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[PreTrainedConfig], Path]:
    """Saves a random model of a configuration and gives its folder."""

    def save(config: PreTrainedConfig) -> Path:
        return tiny_models.save(config, tmp_path_factory.mktemp(config.model_type))

    return save


@pytest.fixture(scope="module")
def gqa(saved: Callable[[PreTrainedConfig], Path]) -> Path:
    return saved(LlamaConfig(**SHAPE))


@pytest.fixture(scope="module")
def mha(saved: Callable[[PreTrainedConfig], Path]) -> Path:
    return saved(LlamaConfig(**{**SHAPE, "num_key_value_heads": 4}))


@pytest.fixture(params=["fused", "plain"])
def path_taken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test with it runs on the CPU's fused kernel, and on the path that other devices take."""
    if request.param == "plain":
        monkeypatch.setattr(span_mass, "fused_kernel", lambda q_BHLD, v_BKLD: None)
        monkeypatch.setattr(span_mass, "_LOGITS_ON_CPU", 20_000)  # several pieces of columns, the last one smaller
    return str(request.param)


def per_layer(calculator: Calculator, config: LadmConfig, ids_BL: np.ndarray) -> np.ndarray:
    return np.array([score.cds_per_layer for score in score_windows(calculator, config, ids_BL)])


@pytest.mark.parametrize("heads", ["gqa", "mha"])
@pytest.mark.parametrize(
    ("length", "span", "d_afs", "d_cds"), [(256, 8, 2, 2), (301, 8, 2, 3), (277, 8, 4, 1), (400, 7, 1, 5)]
)
def test_published_formula(
    heads: str, length: int, span: int, d_afs: int, d_cds: int, path_taken: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(heads)
    config = LadmConfig(span=span, d_afs=d_afs, d_cds=d_cds, device="cpu")
    ids_BL = windows(2, length)
    scores = score_windows(load_calculator(folder, config), config, ids_BL)
    for score, ids_L in zip(scores, ids_BL, strict=True):
        layers = reference.eager_attentions(folder, ids_L)
        expected = [reference.published(layer, span, d_afs, d_cds) for layer in layers]
        assert score.cds_per_layer == pytest.approx(expected, rel=1e-4)
        assert score.cds == pytest.approx(np.mean(score.cds_per_layer))
        assert score.layers == [0, 1, 2]


@pytest.mark.parametrize("length", [17 * 8, 301, 320])
def test_paper_formula(gqa: Path, length: int, path_taken: str) -> None:
    config = LadmConfig(formula="paper", span=8, device="cpu")
    ids_BL = windows(2, length)
    found = per_layer(load_calculator(gqa, config), config, ids_BL)
    expected = [[reference.paper(layer, 8, 4) for layer in reference.eager_attentions(gqa, ids_L)] for ids_L in ids_BL]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_paper_constants(gqa: Path) -> None:
    constants = {"paper_skip_nearest": 2, "paper_first_key_span": 3, "paper_first_query_span": 11}
    config = LadmConfig.model_validate({"formula": "paper", "span": 8, "d_afs": 3, "d_cds": 3, **constants})
    ids_BL = windows(1, 200)
    expected = [reference.paper(layer, 8, 3, m=3, n=2, n0=11) for layer in reference.eager_attentions(gqa, ids_BL[0])]
    np.testing.assert_allclose(per_layer(load_calculator(gqa, config), config, ids_BL)[0], expected, rtol=1e-4)


@pytest.mark.parametrize("ablation", ["no-std", "no-length-weights"])
def test_ablations(gqa: Path, ablation: str) -> None:
    ids_BL = windows(1, 301)
    layers = reference.eager_attentions(gqa, ids_BL[0])
    calculator = load_calculator(gqa, CONFIG)
    published = CONFIG.model_copy(update={"ablation": ablation})
    expected = [reference.published(layer, 8, 2, 3, ablation) for layer in layers]
    np.testing.assert_allclose(per_layer(calculator, published, ids_BL)[0], expected, rtol=1e-4)
    paper = LadmConfig.model_validate({"formula": "paper", "span": 8, "ablation": ablation})
    expected = [reference.paper(layer, 8, 4, ablation=ablation) for layer in layers]
    np.testing.assert_allclose(per_layer(calculator, paper, ids_BL)[0], expected, rtol=1e-4)


def test_rows_that_put_all_their_mass_on_their_own_span(path_taken: str) -> None:
    """Less than a millionth of a row's mass is left for the earlier keys: subtraction would not find it."""
    length, span = 300, 8
    plan = formula.scoring_plan(LadmConfig(span=span, d_afs=2, d_cds=3), length)
    generator = torch.Generator().manual_seed(0)
    q_BHLD, k_BKLD, v_BKLD = (torch.randn(1, heads, length, 8, generator=generator) for heads in (4, 2, 2))
    last = plan.queries[-1].start
    q_BHLD[:, :, last:, 0] = 7.0
    k_BKLD[:, :, last:, 0] = 7.0
    out_BHLD, (pfs_BHP,) = span_mass.attend_and_measure(q_BHLD, k_BKLD, v_BKLD, 1.0, [plan], output=True)
    logits_BHLL = (q_BHLD @ k_BKLD.repeat_interleave(2, 1).transpose(2, 3)).double()
    earlier_BHSL = logits_BHLL[:, :, last:, :last].softmax(-1)
    expected = [
        earlier_BHSL[..., start : start + span].sum((2, 3)).mean().item() for start in plan.queries[-1].key_starts
    ]
    np.testing.assert_allclose(pfs_BHP[0].mean(0)[-len(expected) :], expected, rtol=1e-4)
    causal_LL = torch.ones(length, length, dtype=torch.bool).triu(1)
    whole_BHLL = logits_BHLL.masked_fill(causal_LL, -torch.inf).softmax(-1)
    assert whole_BHLL[:, :, last:, :last].sum(-1).max() < 1e-6
    assert out_BHLD is not None
    torch.testing.assert_close(
        out_BHLD.double(), whole_BHLL @ v_BKLD.repeat_interleave(2, 1).double(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("span", [8, 128, 300])
def test_attention_output_with_triangles_of_several_sizes(span: int) -> None:
    length = 2500
    plan = formula.scoring_plan(LadmConfig(span=span, d_afs=1, d_cds=2), length)
    generator = torch.Generator().manual_seed(0)
    q_BHLD, k_BKLD, v_BKLD = (torch.randn(2, heads, length, 8, generator=generator) for heads in (4, 2, 2))
    out_BHLD, _ = span_mass.attend_and_measure(q_BHLD, k_BKLD, v_BKLD, 0.7, [plan], output=True)
    assert out_BHLD is not None
    torch.testing.assert_close(out_BHLD, causal_attention(q_BHLD, k_BKLD, v_BKLD, 0.7), rtol=1e-4, atol=1e-5)


def test_a_layer_keeps_nothing_alive(path_taken: str) -> None:
    """A reference cycle would hold each layer's tensors until the garbage collector comes by: it doubled the memory."""
    plan = formula.scoring_plan(LadmConfig(span=8, d_afs=2, d_cds=3), 300)
    q_BHLD, k_BKLD, v_BKLD = (torch.ones(1, heads, 300, 8) for heads in (4, 2, 2))
    alive = [weakref.ref(each) for each in (q_BHLD, k_BKLD, v_BKLD)]
    gc.disable()
    try:
        span_mass.attend_and_measure(q_BHLD, k_BKLD, v_BKLD, 1.0, [plan], output=True)
        del q_BHLD, k_BKLD, v_BKLD
        assert [each() for each in alive] == [None, None, None]
    finally:
        gc.enable()


def test_the_fused_kernel_is_there() -> None:
    """Where this fails, scores are still right, but scoring costs more than a forward pass."""
    for dtype in (torch.float32, torch.bfloat16):
        assert fused_kernel(torch.ones(1, 1, 1, 8, dtype=dtype), torch.ones(1, 1, 1, 8, dtype=dtype))


@pytest.mark.parametrize("formula", ["published", "paper"])
def test_a_choice_of_layers_gives_the_same_numbers_and_runs_no_layer_beyond(
    gqa: Path, formula: str, path_taken: str
) -> None:
    every = LadmConfig.model_validate({"formula": formula, "span": 8, "device": "cpu"})
    calculator = load_calculator(gqa, every)
    ids_BL = windows(2, 301)
    run: list[int] = []
    for number, layer in enumerate(calculator.model.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: run.append(number))
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: run.append(-1 - number))
    all_layers = per_layer(calculator, every, ids_BL)
    assert run == [0, -1, 1, -2, 2]  # the last layer's MLP is not run
    for choice in ([0], [1], [0, 2], [0, 1]):
        run.clear()
        chosen = LadmConfig.model_validate({**every.model_dump(), "layers": choice})
        scores = score_windows(calculator, chosen, ids_BL)
        np.testing.assert_allclose([score.cds_per_layer for score in scores], all_layers[:, choice], rtol=1e-4)
        assert [score.layers for score in scores] == [choice, choice]
        assert max(run) == choice[-1]
        assert min(run) == -choice[-1] or choice == [0]


def test_batches_do_not_change_scores(gqa: Path) -> None:
    calculator = load_calculator(gqa, CONFIG)
    ids_BL = windows(5, 200)
    alone = per_layer(calculator, CONFIG.model_copy(update={"batch_tokens": 1}), ids_BL)
    together = per_layer(calculator, CONFIG.model_copy(update={"batch_tokens": 450}), torch.as_tensor(ids_BL))
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert score_windows(calculator, CONFIG, ids_BL[:0]) == []


def test_out_of_memory_halves_the_batch(gqa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calculator = load_calculator(gqa, CONFIG)
    ids_BL = windows(7, 200)
    expected = per_layer(calculator, CONFIG, ids_BL)
    tried: list[int] = []
    measure, most = window_scores.one_pass, 2

    def small_memory(*arguments: Any, **named: Any) -> Any:
        tried.append(len(arguments[2]))
        if tried[-1] > most:
            raise torch.OutOfMemoryError
        return measure(*arguments, **named)

    monkeypatch.setattr(window_scores, "one_pass", small_memory)
    np.testing.assert_allclose(per_layer(calculator, CONFIG, ids_BL), expected, rtol=1e-4)
    assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    tried.clear()
    per_layer(calculator, CONFIG, ids_BL[:2])
    assert tried == [1, 1]  # what was learnt is kept
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        score_windows(calculator, CONFIG, ids_BL)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(gqa: Path, dtype: str, path_taken: str) -> None:
    config = LadmConfig.model_validate({**CONFIG.model_dump(), "dtype": dtype})
    calculator = load_calculator(gqa, config)
    assert next(calculator.model.parameters()).dtype == calculator.dtype == getattr(torch, dtype)
    found = per_layer(calculator, config, windows(2, 301))
    assert np.isfinite(found).all()
    assert (found > 0).all()


@pytest.mark.parametrize("length", [40, 43])
def test_span_attention_published(gqa: Path, length: int) -> None:
    ids_L = windows(1, length)[0]
    calculator = load_calculator(gqa, CONFIG)
    layers = reference.eager_attentions(gqa, ids_L)
    for layer in (0, 1, None):
        pfs_NN = span_attention(calculator, CONFIG, ids_L, layer)
        assert pfs_NN.shape == (5, 5)
        chosen = layers if layer is None else [layers[layer]]
        for j in range(5):
            for i in range(5):
                start = length - 40 + 8 * j
                expected = (
                    np.mean([reference.published_pfs(each, 8, start, 8 * (j - i)) for each in chosen])
                    if i < j
                    else None
                )
                assert np.isnan(pfs_NN[j, i]) if expected is None else pfs_NN[j, i] == pytest.approx(expected, rel=1e-4)


def test_span_attention_paper(gqa: Path, path_taken: str) -> None:
    ids_L = windows(1, 43)[0]
    config = LadmConfig(formula="paper", span=8, layers=(1,), device="cpu")
    pfs_NN = span_attention(load_calculator(gqa, config), config, ids_L)
    layer = reference.eager_attentions(gqa, ids_L)[1]
    expected = [[reference.paper_pfs(layer, 8, j, i) if i <= j else np.nan for i in range(5)] for j in range(5)]
    np.testing.assert_allclose(pfs_NN, expected, rtol=1e-4)
    np.testing.assert_allclose(np.nansum(pfs_NN, axis=1), 8, rtol=1e-4)  # all of a row's mass is on the grid


def test_mistakes_are_named(gqa: Path, tmp_path: Path, saved: Callable[[PreTrainedConfig], Path]) -> None:
    calculator = load_calculator(gqa, CONFIG)
    assert (calculator.n_layers, calculator.max_positions) == (3, 2048)
    with pytest.raises(ModelError, match=r"^input_ids: token 97 is not in the calculator's vocabulary of 97"):
        score_windows(calculator, CONFIG, np.full((1, 301), VOCABULARY))
    with pytest.raises(ConfigError, match=r"^window\.length: 80 "):
        score_windows(calculator, CONFIG, windows(1, 80))
    with pytest.raises(ConfigError, match=r"^scorer\.layers: the model has no layer 3"):
        load_calculator(gqa, LadmConfig(layers="1-3"))
    with pytest.raises(ModelError, match=r"^scorer\.model: .* cannot be loaded: [^\n]*$"):
        load_calculator(tmp_path, CONFIG)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"^scorer\.device: cuda:1 is not on this machine"):
            load_calculator(gqa, LadmConfig(device="cuda:1"))


def test_missing_weights_are_not_made_up(gqa: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(gqa / "model.safetensors")
    del weights["layers.1.self_attn.k_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((gqa / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"lacks 1 weights, the first layers\.1\.self_attn\.k_proj\.weight"):
        load_calculator(tmp_path, CONFIG)
