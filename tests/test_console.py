"""What a terminal shows: bars that count windows where a model works, and shards elsewhere."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from typing import Any

import pytest

from ladm.flows.console import Console
from ladm.flows.runs.outcomes import Done
from ladm.tasks.manifest import Counts, Manifest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def manifest(stage: str, windows: int) -> Manifest:
    counts = Counts(received=windows, kept=windows)
    return Manifest(stage=stage, key="k", label="a shard", counts=counts, seconds=0.0, measures={"windows": windows})


def bars(console: Console) -> dict[str, tuple[Any, Any]]:
    assert console._progress is not None
    return {bar.description: (bar.completed, bar.total) for bar in console._progress.tasks}


@pytest.mark.parametrize("stage", ["score", "scan"])
def test_windows_are_counted_where_a_model_works(stage: str) -> None:
    with Console(Terminal()) as console:
        console.expect(stage)
        assert bars(console) == {}
        console.expect_windows(stage, 8)
        console.advance(stage, 3)
        console.finished(Done("a", manifest(stage, 3), cached=False))
        assert bars(console) == {stage: (3, 8)}
        console.finished(Done("a", manifest(stage, 5), cached=True))
        assert bars(console) == {stage: (3, 8)}
        console.advance(stage, 5)
        assert bars(console) == {stage: (8, 8)}


def test_shards_are_counted_elsewhere_and_what_is_not_shown_does_no_harm() -> None:
    with Console(Terminal()) as console:
        for stage in ("tokenize", "tokenize", "contrast"):
            console.expect(stage)
        console.finished(Done("a", manifest("tokenize", 5), cached=False))
        console.finished(Done("", manifest("contrast", 5), cached=False))
        assert bars(console) == {"tokenize": (1, 2)}


def test_no_bar_is_asked_of_what_the_text_alone_tells() -> None:
    """Its stage is that of what the model measures, and windows are expected of the model alone."""
    with Console(Terminal()) as console:
        console.expect("measure")
        console.advance("measure", 0)
        console.finished(Done("a", manifest("measure", 5), cached=False))
        console.finished(Done("a", manifest("measure", 5), cached=True))
        assert bars(console) == {}
        console.expect_windows("measure", 5)
        console.finished(Done("a", manifest("measure", 5), cached=True))
        assert bars(console) == {"measure": (0, 5)}


def test_piped_output_is_plain_lines() -> None:
    out = io.StringIO()
    with Console(out) as console:
        console.expect_windows("scan", 8)
        console.advance("scan", 3)
        console.finished(Done("a", manifest("scan", 8), cached=False))
    assert re.fullmatch(
        r"scan      done    a shard  8 in, 8 kept  \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]\n", out.getvalue()
    )


def test_what_a_run_needs_before_prefect_is_told_to_be_quiet_does_not_import_it() -> None:
    """Else Prefect sets up its log as it is by default, and tells a terminal of every task."""
    modules = (
        "console",
        "ending",
        "commands",
        "config",
        "orchestration.cancelling",
        "orchestration.environment",
        "one_run",
    )
    program = "import sys, " + ", ".join(f"ladm.flows.{name}" for name in modules) + "; print('prefect' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_bars_tell_how_fast_it_goes_and_how_long_it_takes() -> None:
    out = Terminal()
    clock = iter(range(0, 10_000, 10))
    with Console(out) as console:
        assert console._progress is not None
        console._progress.get_time = lambda: float(next(clock))
        console.expect_windows("score", 100)
        for _ in range(5):
            console.advance("score", 10)
        console._progress.refresh()
    assert re.search(r"\d(\.\d)?/(s|min)", out.getvalue())
    assert "50/100" in out.getvalue()
