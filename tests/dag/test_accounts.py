"""What guards users' data raises whatever Python is told: `python -O` leaves out assertions, and only those."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Corpus, run_arguments

from ladm import flows, tasks
from ladm.tasks.errors import AccountError, UserError
from ladm.tasks.stage import can_pass

LOSING = """
import dataclasses, sys
from ladm.flows.dag import curate
from ladm.flows.cli import main
from ladm.tasks.job import Outcome
from ladm.tasks.manifest import Counts

stage = curate.STAGES["length"]

def losing(job, store, key):
    outcome = stage.compute(job, store, key)
    counts = outcome.counts
    return dataclasses.replace(outcome, counts=counts.replaced(kept=counts.kept - 1))

if __name__ == "__main__":
    assert False, "optimised"
    curate.STAGES["length"] = dataclasses.replace(stage, compute=losing)
    sys.exit(main(sys.argv[1:]))
"""
"""`ladm` with a length filter that loses a document of every file."""


def test_a_lost_record_fails_the_run_under_python_o(tmp_path: Path, corpus: Corpus) -> None:
    store = tmp_path / "store"
    ended = subprocess.run(
        [sys.executable, "-O", "-c", LOSING, *run_arguments(corpus, store, "execution.retries=2")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "optimised" not in ended.stderr
    assert ended.returncode == 1, ended.stderr
    failures = json.loads(ended.stdout)["failures"]
    assert {one["stage"] for one in failures} == {"length"}
    assert all("AccountError: length " in one["error"] and "accounted for" in one["error"] for one in failures)
    assert not (store / "latest").exists()


def test_our_own_mistakes_are_not_retried_nor_taken_for_a_users() -> None:
    assert not can_pass(AccountError("a record is lost"))
    assert not issubclass(AccountError, UserError)


def only_narrows(test: ast.expr) -> bool:
    """Whether a condition tells a type checker what it cannot see, and nothing else."""
    match test:
        case ast.BoolOp(ast.And(), conditions):
            return all(map(only_narrows, conditions))
        case ast.Call(ast.Name("isinstance")):
            return True
        case ast.Compare(_, [ast.IsNot()], [ast.Constant(None)]):
            return True
    return False


def asserted(source: str) -> Iterator[ast.Assert]:
    """The assertions that do more than narrow."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert))
    return (one for one in found if not only_narrows(one.test))


def modules() -> list[Path]:
    """All our modules, wherever they lie."""
    return [file for package in (flows, tasks) for folder in package.__path__ for file in Path(folder).rglob("*.py")]


def test_no_module_asserts_what_must_hold_of_data() -> None:
    assert len(modules()) > 80
    found = [f"{file}:{one.lineno}" for file in modules() for one in asserted(file.read_text(encoding="utf-8"))]
    assert found == [], "raise AccountError, or what a user can mend; python -O leaves assertions out"


@pytest.mark.parametrize(
    ("line", "narrows"),
    [
        ("assert x is not None", True),
        ("assert isinstance(x, int)", True),
        ("assert a is not None and isinstance(b, C), 'both'", True),
        ("assert x", False),
        ("assert a == b, 'the same'", False),
        ("assert a is None", False),
        ("assert a is not None or b", False),
        ("assert a is not None and b > 1", False),
        ("assert isinstance(a, int) == b", False),
    ],
)
def test_what_merely_narrows(line: str, narrows: bool) -> None:
    assert (list(asserted(line)) == []) is narrows
