"""How a run ends: what it did not get, and the exact next command, line by line. For the console and for Prefect."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ladm.flows.dag.stages import NAMES
from ladm.tasks.printable import printable
from ladm.tasks.redact import without_secrets

DEPLOYED = "run the deployment again"
"""What stands for the command where a run was started by none."""
QUARANTINE = "select stage, source, line, reason, excerpt from quarantine order by all"
DROPS = "select stage, shard, records_in, kept, dropped_reasons, quarantined from stages"


def run_command(options: argparse.Namespace) -> str:
    """The `ladm run` that a command line asked for, fit to be pasted into a shell."""
    given: list[tuple[str, str | None]] = [("--store", options.store)]
    given += [("--set", setting) for setting in options.set]
    given += [("--until", options.until if options.until != NAMES[-1] else None)]
    given += [("--max-quarantined", options.max_quarantined), ("--runner", options.runner)]
    words = ["ladm", "run", *([options.config] if options.config else [])]
    words += [word for name, value in given if value is not None for word in (name, value)]
    return shlex.join([*words, *(["--json"] if options.json else [])])


def _with_limit(command: str | None, name: str) -> str:
    """A run's command with a limit lifted; the last option counts."""
    option = {"max_quarantined": "--max-quarantined 1", "max_removed": "--set max_removed=1"}[name]
    return f"{command} {option}" if command else f"{DEPLOYED} with {name}=1"


def sql_command(record: Mapping[str, Any], query: str) -> str:
    """The `ladm sql` that asks a run."""
    return shlex.join(["ladm", "sql", query, "--run", record["run_id"], "--store", record["store"]])


RANKED = (None, *NAMES[NAMES.index("rank") :])
"""The last stages of runs that rank."""


def ending(record: Mapping[str, Any], command: str | None = None) -> list[str]:
    """What a run did not get, and what to do next; nothing of a run that got all it was asked for.

    Args:
        record: The run's record.
        command: The command line that started it; None for a deployed run.
    """
    lines: list[str] = []
    for shortfall in record["shortfalls"]:
        lines += [f"note: {shortfall['text']}", f"  {sql_command(record, shortfall['query'])}"]
    again = command or DEPLOYED
    remedies = record["remedies"]
    if {"mend", "change"} & set(remedies):  # the command is the same, and there is something to do before
        remedies = [remedy for remedy in remedies if remedy != "again"]
    for remedy in remedies:
        lines += _next(remedy, record, again, command)
    return [str(without_secrets(line)) for line in lines]


def _next(remedy: str, record: Mapping[str, Any], again: str, command: str | None) -> Sequence[str]:
    """What to do next, and below it the command."""
    folder = printable(f"{record['store'].rstrip('/')}/runs/{record['run_id']}", 2000)
    rest = "it does only what is not done" + (", and the ranking" if record.get("until") in RANKED else "")
    told: dict[str, Sequence[str]] = {
        "again": (f"next ({rest}):", f"  {again}"),
        "mend": (f"next, once that is mended ({rest}):", f"  {again}"),
        "change": ("next, with that changed:", f"  {again}"),
        "sources": (
            "next, when they are there again:",
            f"  {again}",
            "or, if they are meant to be gone:",
            f"  {_with_limit(command, 'max_removed')}",
        ),
        "quarantine": (
            "next (the same command would fail again):",
            f"  {sql_command(record, QUARANTINE)}",
            "or, to rank without them:",
            f"  {_with_limit(command, 'max_quarantined')}",
        ),
        "drops": ("next (the same command would fail again):", f"  {sql_command(record, DROPS)}"),
    }
    bug = f"this is a bug, and running again does not mend it; please report it, with {folder}/run.json"
    return told.get(remedy, (bug,))
