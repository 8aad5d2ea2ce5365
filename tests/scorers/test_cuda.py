"""What only an NVIDIA GPU can show: the kernels against the definition, the golden scores, bfloat16, memory run out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_golden
import tiny_models
import torch
from transformers import LlamaConfig

from ladm.tasks.errors import ModelError
from ladm.tasks.job import Job
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.schema import WINDOWS
from ladm.tasks.scorers import span_mass
from ladm.tasks.scorers.calculator import load_calculator
from ladm.tasks.scorers.compiled_parts import kernels_work
from ladm.tasks.scorers.distance_profile import profile_plan
from ladm.tasks.scorers.ladm import LadmConfig, grid_plan, scoring_plan
from ladm.tasks.scorers.loaded_model import calculator_for
from ladm.tasks.scorers.spans import QuerySpan, SpanPlan
from ladm.tasks.scorers.window_scores import score_windows
from ladm.tasks.stages.score import score, score_key_config
from ladm.tasks.storage.store import Store, table_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU is here")

LENGTH = 2560
MODEL = LlamaConfig(
    **{
        **tiny_models.SHAPE,
        "hidden_size": 256,
        "intermediate_size": 512,
        "head_dim": 64,
        "num_hidden_layers": 2,
        "initializer_range": 0.1,  # more, and bfloat16's rounding turns one random number into another
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(MODEL, tmp_path_factory.mktemp("model"))


@pytest.fixture
def memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_the_kernels_work_here() -> None:
    """On what the project is made for; an older GPU than Ampere, or one without a C compiler, goes the plain way."""
    assert kernels_work(torch.device("cuda"))


def spaced(length: int, span: int, own_keys: bool, first: int) -> SpanPlan:
    """Every third span from `first`, and every second key span before it."""
    queries = [
        QuerySpan(start, tuple(range(start if own_keys else start - 2 * span, -1, -2 * span)))
        for start in range(first, length - span + 1, 3 * span)
    ]
    return SpanPlan(length, span, own_keys, tuple(queries))


PLANS = {
    "published": (scoring_plan(LadmConfig(), 4096), 64, 9, 3),
    "published, windows of no whole spans": (scoring_plan(LadmConfig(span=100), 2049), 80, 4, 2),
    "paper": (scoring_plan(LadmConfig(formula="paper"), 4096), 128, 4, 4),
    "profile": (profile_plan(4096), 64, 9, 3),
    "profile, cells of two tokens": (profile_plan(256), 16, 3, 1),
    "grid": (grid_plan(LadmConfig(span=64), 1000), 64, 2, 1),
    "long spans": (spaced(1000, 130, False, 263), 96, 4, 2),
    "long spans, own keys": (spaced(1000, 130, True, 0), 256, 2, 1),
    "short spans": (spaced(300, 5, False, 10), 8, 4, 2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", PLANS)
def test_the_kernels_against_the_definition(name: str, dtype: torch.dtype) -> None:
    from ladm.tasks.scorers.span_mass_triton import measure

    plan, D, H, K = PLANS[name]
    torch.manual_seed(0)
    L, S = plan.length, plan.span
    # Laid out (B, L, H, D), as a model's are.
    q_BHLD, k_BKLD = ((1.5 * torch.randn(2, L, heads, D, device="cuda")).to(dtype).transpose(1, 2) for heads in (H, K))
    found_BHP = measure(q_BHLD, k_BKLD, D**-0.5, plan)
    logits_BHLL = q_BHLD.double() @ k_BKLD.double().repeat_interleave(H // K, dim=1).transpose(2, 3) * D**-0.5
    columns_L = torch.arange(L, device="cuda")
    expected = []
    for query in plan.queries:
        rows = slice(query.start, query.start + S)
        last_S1 = columns_L[rows, None] if plan.own_keys else torch.full((S, 1), query.start - 1, device="cuda")
        share_BHSL = logits_BHLL[:, :, rows].masked_fill(columns_L > last_S1, -torch.inf).softmax(-1)
        expected += [share_BHSL[..., key : key + S].sum((2, 3)) for key in query.key_starts]
    torch.testing.assert_close(found_BHP.double(), torch.stack(expected, dim=2), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("way", ["kernels", "plain"])
@pytest.mark.parametrize("case", test_golden.RANDOM_CASES, ids=lambda case: f"{case['case']}-{case['model']}")
def test_golden_random_models(case: dict[str, Any], way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "plain":
        monkeypatch.setattr(span_mass, "kernels_work", lambda device: False)
    ids = np.load(test_golden.RANDOM_MODELS / "input_ids.npz")
    test_golden.check(case, test_golden.RANDOM_MODELS / case["model"], ids[case["case"]], "cuda")


@pytest.mark.parametrize("case", test_golden.REAL_CASES, ids=lambda case: str(case["case"]))
def test_golden_real_text(case: dict[str, Any]) -> None:
    try:
        folder = resolve_model("embedded").path
    except ModelError as error:
        pytest.skip(f"the embedded model is not here: {error}")
    ids = np.load(test_golden.REAL_TEXT / "smollm2_ids.npz")
    test_golden.check(case, folder, np.reshape(ids[case["case"]], (1, -1)), "cuda")


def test_a_window_scores_alike_alone_and_among_others(folder: Path) -> None:
    config = LadmConfig(device="cuda", dtype="float32")
    calculator = load_calculator(folder, config)
    ids_BL = tiny_models.windows(5, LENGTH)
    together = [score.cds for score in score_windows(calculator, config, ids_BL)]
    alone = [score_windows(calculator, config, ids_L[None])[0].cds for ids_L in ids_BL]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_bfloat16_with_its_compiled_parts(folder: Path) -> None:
    ids_BL = tiny_models.windows(6, LENGTH)
    exact, half = (LadmConfig.model_validate({"device": "cuda", "dtype": dtype}) for dtype in ("float32", "bfloat16"))
    expected = [score.cds for score in score_windows(load_calculator(folder, exact), exact, ids_BL)]
    calculator = load_calculator(folder, half)
    for count in (6, 4, 1):  # other shapes go through the compiled parts too
        found = [score.cds for score in score_windows(calculator, half, ids_BL[:count])]
        np.testing.assert_allclose(found, expected[:count], rtol=0.02)


@pytest.mark.usefixtures("memory")
def test_memory_that_runs_out_halves_the_batch(folder: Path) -> None:
    config = LadmConfig(device="cuda", dtype="float32", batch_tokens=256 * LENGTH)
    calculator = load_calculator(folder, config)
    ids_BL = tiny_models.windows(256, LENGTH)
    expected = [score.cds for score in score_windows(calculator, config, ids_BL)]
    assert calculator.most_windows is None
    needed = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.4 * needed / torch.cuda.get_device_properties(0).total_memory)
    found = [score.cds for score in score_windows(calculator, config, ids_BL)]
    assert calculator.most_windows is not None
    assert calculator.most_windows < 256
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_stage_scores_a_shard_here(folder: Path, tmp_path: Path) -> None:
    """From windows in Parquet to scores in Parquet, every one in its own window's row."""
    config = LadmConfig.model_validate({"model": str(folder), "device": "cuda", "dtype": "float32"})
    ids_BL = tiny_models.windows(40, LENGTH)
    names = [str(number) for number in range(40)]
    rows: dict[str, list[Any]] = {name: [0] * 40 for name in WINDOWS.names}
    rows |= {"window_id": names, "doc_id": names, "domain": ["x"] * 40, "doc_tokens_exact": [True] * 40}
    rows |= {"input_ids": ids_BL.tolist(), "n_tokens": [LENGTH] * 40}
    store = Store(str(tmp_path / "store"))
    shard = store.write_shard("tokenize", "windows", table_of(rows, WINDOWS))
    digest = resolve_model(str(folder)).digest
    where = {"model": str(folder), "device": "cuda", "batch_tokens": 16 * LENGTH}
    job = Job(
        stage="score",
        label="x",
        store=store.uri,
        config=score_key_config(config),
        inputs={"windows": [shard]},
        identity=[digest, None],
        environment=where,
    )
    outcome = score(job, store, "key")
    assert outcome.counts.received == outcome.counts.kept == 40
    assert outcome.measures == {"windows": 40, "tokens": 40 * LENGTH}
    calculator, turns = calculator_for(config, digest)
    assert turns.at_once == 1
    expected = [scored.cds for scored in score_windows(calculator, config, ids_BL)]
    found = store.read_shard(outcome.shards[0])
    assert found["window_id"].to_pylist() == names
    np.testing.assert_allclose(found["cds"].to_numpy(), expected, rtol=1e-4)
