"""In which precision a device is fast, and what `scorer.dtype: auto` makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

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
def test_auto_is_the_precision_that_pays_and_a_set_one_stays(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: has)
    monkeypatch.setattr(loaded_model, "accelerator", lambda: "cpu")
    found = {
        (device, dtype): loaded_model.resolved_scorer(LadmConfig(device=device, dtype=dtype)).dtype
        for device in ("auto", "cpu", "cuda:1", "mps")
        for dtype in ("auto", "float32", "bfloat16")
    }
    fast = "bfloat16" if has else "float32"
    assert (found["auto", "auto"], found["cpu", "auto"]) == (fast, fast)
    assert (found["cuda:1", "auto"], found["mps", "auto"]) == ("bfloat16", "float32")
    assert {dtype: one for (_, dtype), one in found.items() if dtype != "auto"} == {
        "float32": "float32",
        "bfloat16": "bfloat16",
    }
