"""In which precision a device is fast, and what `scorer.dtype: auto` makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ladm.flows.config import RunConfig
from ladm.flows.dag.settled_scorer import with_calibration
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.scorers import loaded_model, processor
from ladm.tasks.scorers.ladm import LadmConfig

CORE = "processor : {}\nmodel name : Some CPU\nflags : fpu sse2 avx512f{}\n\n"


@pytest.mark.parametrize(
    ("more", "has"),
    [
        (("", ""), False),
        ((" avx512_bf16", " avx512_bf16"), True),
        ((" amx_bf16 amx_tile", " amx_bf16"), True),
        ((" avx512_bf16", ""), False),
        ((" not_avx512_bf16", " avx512_bf16x"), False),
    ],
)
def test_every_core_has_to_have_the_instructions(tmp_path: Path, more: tuple[str, ...], has: bool) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("".join(CORE.format(number, one) for number, one in enumerate(more)))
    assert processor.multiplies_bfloat16(path) is has


def test_what_the_system_does_not_tell_is_not_there(tmp_path: Path) -> None:
    assert processor.multiplies_bfloat16(tmp_path / "none") is False
    (tmp_path / "empty").write_text("")
    assert processor.multiplies_bfloat16(tmp_path / "empty") is False


@pytest.mark.parametrize("has", [False, True])
def test_auto_is_the_precision_that_pays_under_a_calibration(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(loaded_model, "multiplies_bfloat16", lambda: has)
    monkeypatch.setattr(loaded_model, "accelerator", lambda: "cpu")

    def found(**settings: str) -> str:
        return loaded_model.resolved_scorer(loaded_model.in_fast_precision(LadmConfig.model_validate(settings))).dtype

    fast = "bfloat16" if has else "float32"
    assert [found(device=device) for device in ("auto", "cpu", "cuda:1", "mps")] == [fast, fast, "bfloat16", "float32"]
    assert found(device="cpu", dtype="float32") == "float32", "what is set stays"
    assert found(device="cpu", dtype="bfloat16") == "bfloat16"


@pytest.mark.parametrize("has", [False, True])
def test_a_formula_alone_is_exact_on_a_cpu(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(loaded_model, "multiplies_bfloat16", lambda: has)
    assert loaded_model.resolved_scorer(LadmConfig(device="cpu")).dtype == "float32"


@pytest.mark.parametrize(("layers", "dtype"), [("calibrated", "bfloat16"), ("own", "bfloat16"), ("all", "auto")])
def test_a_run_has_its_precision_settled(monkeypatch: pytest.MonkeyPatch, layers: str, dtype: str) -> None:
    monkeypatch.setattr(loaded_model, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(loaded_model, "accelerator", lambda: "cpu")
    sources = [{"uri": "/data"}]
    config = RunConfig.model_validate({"sources": sources, "scorer": {"layers": layers}, "window": {"length": 1024}})
    settled, _ = with_calibration(config, resolve_model("embedded"))
    assert settled.scorer.dtype == dtype
