"""Benchmark: `ladm plan` over a store of a hundred thousand jobs, all done, and over one in which some are left.

The store is made up: each job's manifest says what such a job gives, and each of its files is one byte. What the plan
reads of a store, the listing, the index and the last run's record, is as large as after a real run. Each plan is the
command in a process of its own, from its start to its end.

    python benchmarks/many_manifests.py --model FOLDER [--manifests 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measure import Answer, call, cells
from results import write_section

A_FILE = 5
"""Manifests of each source file: read, filtered by length, cut, scored, and its text measured."""


def main() -> None:
    """Run the benchmark and write its table."""
    if sys.argv[1:2] == ["--ladm"]:
        from ladm.flows.cli import main as ladm  # noqa: PLC0415

        sys.exit(ladm(sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a small model with a tokenizer")
    parser.add_argument("--manifests", type=int, default=100_000, metavar="N")
    parser.add_argument("--make", nargs=2, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_up(*options.make, options.model)
        return
    with tempfile.TemporaryDirectory(prefix="ladm-manifests-") as name:
        rows = measured(Path(name), options.model, options.manifests)
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    columns = ["manifests", "jobs to be done", "wall", "CPU", "peak memory", "cached, as the plan says", "to do"]
    text = (
        f"A made-up store of {options.manifests // A_FILE:,} source files, each read by a job of its own. Asked: at "
        f"most 20 s and 500 MB. Load of the machine at the end (1, 5 and 15 minutes): {loads}."
    )
    command = f"python benchmarks/many_manifests.py --model FOLDER --manifests {options.manifests}"
    print(write_section("A plan over many manifests", command, ["ladm", "pyarrow"], columns, rows, text))


def measured(folder: Path, model: str, manifests: int) -> list[list[str]]:
    """The table's lines."""
    files = manifests // A_FILE
    for number in range(files):
        _write(folder, number, "a document")
    call(__file__, ["--model", model, "--make", folder / "sources", folder / "store"])
    made = sum(1 for _ in (folder / "store" / "records").glob("*/*.json"))
    rows = []
    for what, changed in (("none", 0), ("those of one file in a hundred", files // 100)):
        for number in range(changed):
            _write(folder, 100 * number, "another document")
        answer = planned(folder / "sources", folder / "store", model)
        cached, todo = (sum(stage[name] for stage in answer.said["stages"]) for name in ("cached", "todo"))
        rows.append([f"{made:,}", what, *cells(answer.whole), f"{cached:,}", f"{todo:,}"])
        print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _write(folder: Path, number: int, text: str) -> None:
    path = folder / "sources" / f"{number // 1000:03d}" / f"{number:06d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"text": f"{text}, {number}", "meta": {"set": f"d{number % 4}"}}) + "\n")


def settings(sources: str, model: str) -> list[str]:
    """The settings of all runs."""
    values = {
        "sources": f"[{{uri: {sources}, domain: meta.set}}]",
        "ingest.pack_bytes": 0,
        "scorer.model": model,
        "scorer.span": 16,
        "scorer.layers": "all",
        "window.length": 512,
        "export": "parquet",
    }
    return [f"{name}={value}" for name, value in values.items()]


def planned(sources: Path, store: Path, model: str) -> Answer:
    """One `ladm plan`."""
    given = [one for setting in settings(str(sources), model) for one in ("--set", setting)]
    return call(__file__, ["--ladm", "plan", "--json", "--store", store, *given])


def make_up(sources: str, store: str, model: str) -> None:
    """Fill a store as if a run had done all jobs up to the export."""
    from ladm.flows.config import load_config  # noqa: PLC0415
    from ladm.flows.console import Console  # noqa: PLC0415
    from ladm.flows.dag.crew import Crew  # noqa: PLC0415
    from ladm.flows.dag.doing import do_stages, publish_what_there_is  # noqa: PLC0415
    from ladm.flows.dag.preflight import preflight  # noqa: PLC0415
    from ladm.flows.dag.stages import STAGES  # noqa: PLC0415
    from ladm.flows.runs.record import RunRecord  # noqa: PLC0415
    from ladm.tasks.stage import StoreRecords  # noqa: PLC0415
    from ladm.tasks.storage.store import Store  # noqa: PLC0415

    record = RunRecord(preflight(load_config(None, settings(sources, model), store)))
    into, console = Store(store), Console.silent()
    crew = Crew(_MakingUp(into, StoreRecords(uri=store)), STAGES)  # type: ignore[arg-type]  # for Prefect's tasks
    do_stages(into, record, console, lambda: crew)
    record.finished = datetime.now(UTC)
    publish_what_there_is(record, console)
    if record.failures:
        raise RuntimeError(record.failures[0].error)


class _MakingUp:
    """A runner that says of each job that it was done, and writes what would be there."""

    workers = models = 1
    same_process = True

    def __init__(self, store: Any, records: Any) -> None:
        self._store, self._records = store, records

    def submit(self, stage: Any, job: Any, *, holds_model: bool) -> Any:
        """One record of each source file, kept everywhere, and one file a job."""
        from ladm.flows.dag.stages import TABLE  # noqa: PLC0415
        from ladm.flows.forecast.by_hand import Finished  # noqa: PLC0415
        from ladm.tasks.manifest import Counts, Manifest  # noqa: PLC0415

        folder = next(row.stored_in for row in TABLE if row.stage.name == stage.name)
        key = stage.key(job)
        received = sum(shard.rows for shard in next(iter(job.inputs.values()), [])) or 1
        made = self._store.write_file(folder, key, "parquet", b"0").replaced(rows=received)
        counts = Counts(received=received, kept=received)
        measures = {"windows": 1} if stage.name == "score" else {}
        manifest = Manifest(stage=stage.name, key=key, label=job.label, shards=[made], counts=counts, measures=measures)
        self._records.write_manifest(manifest)
        return Finished(manifest.as_dict())


if __name__ == "__main__":
    main()
