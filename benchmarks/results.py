"""Where the benchmarks' tables go: one section a benchmark in RESULTS.md, replaced whole by each run of it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"
_HEAD = """# Benchmarks, as measured

Every table is written by the command above it, never by hand. Competitor and candidate do the same work in the same
run, by turns; figures are medians over the rounds. Ratios can be compared between machines, seconds cannot.
"""


def machine() -> str:
    """The processor, cores and memory of this machine, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = ", ".join(sorted(names)) or platform.processor()
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {platform.system()}"


def write_section(
    name: str, command: str, packages: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]], text: str
) -> str:
    """Put one table into RESULTS.md and return it.

    Args:
        name: The section's title; a section of that title is replaced.
        command: How it was made.
        packages: Whose versions count.
        columns: The table's head.
        rows: Its cells, formatted.
        text: What was measured, and how to read it.
    """
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    lines = [f"## {name}", "", f"`{command}`, {datetime.now(UTC):%Y-%m-%d}; {machine()}; {versions}", "", text, ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    section = "\n".join(lines) + "\n"
    before = RESULTS.read_text() if RESULTS.exists() else _HEAD
    parts = re.split(r"(?m)^(?=## )", before)
    kept = [part.rstrip() + "\n" for part in parts if not part.startswith(f"## {name}\n")]
    RESULTS.write_text("\n".join([*kept, section]))
    return section
