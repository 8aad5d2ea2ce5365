"""The notebook of docs/: its cells run, one after the other, with a tiny model in the place of the embedded one."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import ladm
from ladm.flows import config

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "first.ipynb"


def shown(cell: str, names: dict[str, Any]) -> Any:
    """What a cell shows: the value of its last line, if that is an expression."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


def test_its_cells_run(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = config.sample_config()
    sample["scorer"]["model"] = str(tiny_model)
    monkeypatch.setattr(config, "sample_config", lambda: sample)
    monkeypatch.setenv("LADM_STORE", str(tmp_path / "store"))
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    answers = [shown("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"]
    run = answers[0]
    assert isinstance(run, ladm.Run)
    assert run.record["stages"]["rank"]["documents"] > 40
    assert set(answers[1].index) == {"Books", "Code", "Legal", "Manuals", "QA", "Reference"}
    assert [row["rank"] for row in answers[2].to_pylist()] == [1] * 6
    assert {row["stage"]: row["records"] for row in answers[3].to_pylist()}["ingest"] == 72
    scored, selected = answers[4]
    assert scored == 0
    assert 0 < selected <= 200_000
    assert [row["note"] != "" for row in answers[5].to_pylist()] == [False, True]
    assert answers[6].pfs.shape == (32, 32)
    assert all(hasattr(answer, "_repr_html_") for answer in (run, *answers[1:4], *answers[5:]))
