"""Benchmark: what Prefect costs, a run of 200 shards against the same stages' plain functions called in a loop.

Both do the same jobs with the same functions and write the same store (checked): ingest, length, tokenize and score,
with the embedded model. One is `ladm run`, with its Prefect server, its task runs, retries and cached results; the
other calls `run_job` shard by shard. Each shard holds one document with one window of the bundled run's length, far
less than a shard of the default size (64 MiB of text), so that this is about the largest share that Prefect has.

    python benchmarks/orchestration.py [--shards 200]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from corpus import SHARED, documents, write_files
from measure import Answer, call, cells, median_cost, timed
from results import write_section

WINDOW = 1_024
STAGES = ("ingest", "length", "tokenize", "score")
LOOP, RUN = "plain functions in a loop", "`ladm run`, with Prefect"


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, default=SHARED, metavar="FOLDER")
    parser.add_argument("--shards", type=int, default=200, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="by turns; the medians are taken")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of the model, for both")
    parser.add_argument("--work", choices=[LOOP, RUN], help=argparse.SUPPRESS)
    parser.add_argument("--sources", help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work = plain_loop if options.work == LOOP else prefect_run
        print(json.dumps(work(options.sources, options.store)))
        return
    with tempfile.TemporaryDirectory(prefix="ladm-orchestration-") as name:
        rows = measured(Path(name), options.corpus, options.shards, options.rounds, options.threads)
    columns = ["what", "wall, work", "CPU, work", "wall, whole process", "CPU, whole process", "peak memory"]
    text = (
        f"{options.shards} source files of one document each, one window of {WINDOW:,} tokens scored by layers 14 to "
        f"24; {4 * options.shards} jobs; "
        f"{options.rounds} rounds. The work is from the first job to the last, the model's loading included; the whole "
        "process adds Python's start, imports, the search for the model and, with Prefect, its server's start and "
        "that server's CPU time. The last line is the share of the time with Prefect that the loop does not need, the "
        "median of the rounds' own; it is negative where the run gains more by doing stages side by side."
    )
    command = f"python benchmarks/orchestration.py --shards {options.shards} --rounds {options.rounds}"
    command += f" --threads {options.threads}"
    print(write_section("Prefect's share", command, ["ladm", "prefect", "torch"], columns, rows, text))


def measured(folder: Path, corpus: Path, shards: int, rounds: int, threads: int) -> list[list[str]]:
    """The table's lines."""
    long_ones = [record for record in documents(corpus) if len(record["text"]) > 8 * WINDOW]
    records = [long_ones[number * len(long_ones) // shards] for number in range(shards)]
    write_files(folder / "sources", records, shards)
    answers: dict[str, list[Answer]] = {LOOP: [], RUN: []}
    for number in range(rounds):
        for what in (LOOP, RUN) if number % 2 == 0 else (RUN, LOOP):
            store = folder / f"store-{number}-{len(answers[what])}-{what == RUN}"
            arguments = ["--work", what, "--sources", f"{folder}/sources/*.jsonl", "--store", store]
            answer = call(__file__, arguments, {"OMP_NUM_THREADS": str(threads)})
            answers[what].append(answer)
            print(f"{what}: {'  '.join(cells(answer.work))}; whole {'  '.join(cells(answer.whole))}", file=sys.stderr)
    made = {tuple(answer.said["scores"]) for of_one in answers.values() for answer in of_one}
    assert len(made) == 1, "the two did not write the same scores"
    assert len(made.pop()) == shards
    rows = []
    for what, of_one in answers.items():
        work, whole = (median_cost(costs) for costs in ([a.work for a in of_one], [a.whole for a in of_one]))
        rows.append([what, *cells(work)[:2], *cells(whole)])
    shares = [
        [
            1 - plain / ours
            for plain, ours in (
                (loop.work.wall, run.work.wall),
                (loop.work.cpu, run.work.cpu),
                (loop.whole.wall, run.whole.wall),
                (loop.whole.cpu, run.whole.cpu),
            )
        ]
        for loop, run in zip(answers[LOOP], answers[RUN], strict=True)
    ]
    rows.append(["Prefect's share", *(f"{statistics.median(column):.1%}" for column in zip(*shares, strict=True)), ""])
    return rows


def configuration(sources: str, store: str) -> Any:
    """The run's configuration, for both."""
    from ladm.flows.config import RunConfig  # noqa: PLC0415

    return RunConfig.model_validate(
        {
            "store": store,
            "sources": [sources],
            "ingest": {"pack_bytes": 0},
            "window": {"length": WINDOW},
            "scorer": {"span": 32, "layers": "14-24", "ablation": "no-std"},
        }
    )


def plain_loop(sources: str, store: str) -> dict[str, Any]:
    """All jobs, one after the other, as plain function calls: no Prefect, no cache."""
    from ladm.flows.dag.jobs import ask_ingest, ask_length, ask_score, ask_tokenize  # noqa: PLC0415
    from ladm.flows.dag.preflight import preflight  # noqa: PLC0415
    from ladm.tasks.job import Job, run_job  # noqa: PLC0415
    from ladm.tasks.stages import ingest, length, score, tokenize  # noqa: PLC0415

    plan = preflight(configuration(sources, store), "score")
    following = ((length.STAGE, ask_length), (tokenize.STAGE, ask_tokenize), (score.STAGE, ask_score))
    made = []
    with timed() as seconds:
        for listed in plan.files:
            given: dict[str, Any] = {"label": listed.file.uri, "store": store}
            ask = ask_ingest(plan, listed)
            done = run_job(ingest.STAGE, Job(stage="ingest", config=ask.config, source=listed.file, **given))
            for stage, asks in following:
                (shard,), (ask,) = done.shards, asks(plan)
                given |= {"config": ask.config, "identity": ask.identity, "environment": ask.environment}
                done = run_job(stage, Job(stage=stage.name, inputs={str(stage.roles[0]): [shard]}, **given))
            made.append(done.shards[0].sha256)
    return {**seconds, "scores": sorted(made)}


def prefect_run(sources: str, store: str) -> dict[str, Any]:
    """The same as one run of the DAG, with a Prefect server of its own."""
    import os  # noqa: PLC0415

    from ladm.flows.console import Console  # noqa: PLC0415
    from ladm.flows.dag.preflight import preflight  # noqa: PLC0415
    from ladm.flows.orchestration.environment import prefect_server, quiet_prefect  # noqa: PLC0415
    from ladm.tasks.models.cache import cache_root  # noqa: PLC0415

    config = configuration(sources, store)
    plan = preflight(config, "score")
    quiet_prefect(cache_root())
    from ladm.flows.dag import prepared  # noqa: PLC0415
    from ladm.flows.dag.curate import curate  # noqa: PLC0415

    console = Console(open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with prepared.give_plan(config, "score", plan, console), prefect_server(cache_root()), timed() as seconds:
        record = curate(config, "score")
    jobs = [job for job in record["shards"] if job["stage"] == "score"]
    return {**seconds, "scores": sorted(shard["sha256"] for job in jobs for shard in job["shards"])}


if __name__ == "__main__":
    main()
