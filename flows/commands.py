"""What each command of `ladm` does, from its options to its exit code.

Heavy packages (Prefect, torch) are imported by the commands that need them, after what can be refused is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ladm.flows.imports import without_collection
from ladm.tasks.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from ladm.flows.console import Console

DONE, FAILED, REFUSED = 0, 1, 2
"""Exit codes."""


def run(options: argparse.Namespace) -> int:
    """`ladm run`."""
    with without_collection():
        from ladm.flows.config import load_config  # noqa: PLC0415
        from ladm.flows.console import Console, print_summary  # noqa: PLC0415
        from ladm.flows.ending import ending, run_command  # noqa: PLC0415
        from ladm.flows.one_run import do_run  # noqa: PLC0415

    given = {"max_quarantined": options.max_quarantined, "execution.runner": options.runner}
    settings = [f"{name}={value}" for name, value in given.items() if value is not None]
    config = load_config(options.config, [*options.set, *settings], options.store, _say)
    with Console(sys.stderr) as console, _stopping_at_once(console, run_command(options)):
        record = do_run(config, options.until, console, _results_alone_on_stdout())
    if options.json:
        _print_json(record)
        for line in ending(record, run_command(options)):
            _say(line)
    else:
        print_summary(record, run_command(options))
    return DONE if record["status"] == "completed" else FAILED


def plan(options: argparse.Namespace) -> int:
    """`ladm plan`."""
    with without_collection():
        from ladm.flows.config import load_config  # noqa: PLC0415
        from ladm.flows.forecast.forecast import forecast  # noqa: PLC0415
        from ladm.flows.forecast.words import print_forecast  # noqa: PLC0415
        from ladm.tasks.models.cache import ready_cache  # noqa: PLC0415

    config = load_config(options.config, options.set, options.store)
    ready_cache()
    found = forecast(config, options.until, _say, options.rate)
    if options.json:
        _print_json(found.as_json())
    else:
        print_forecast(found)
    return DONE


def _results_alone_on_stdout() -> contextlib.AbstractContextManager[object]:
    """Until the block ends, what any library prints goes to stderr (Ray tells on stdout of workers that died)."""
    return contextlib.redirect_stdout(sys.stderr)


@contextlib.contextmanager
def _stopping_at_once(console: Console, command: str = "the same command") -> Iterator[None]:
    """Until the block ends, SIGINT and SIGTERM end the process within seconds, with no half-written file left behind.

    A run leaves its record first. Otherwise Prefect would wait for the shards under way, which may take minutes; they
    are safe to leave.

    Args:
        console: Takes its bars off the screen.
        command: What goes on where this process stopped.
    """
    from ladm.flows.orchestration.cancelling import stopping_by_signals  # noqa: PLC0415
    from ladm.tasks.storage.files import remove_unfinished  # noqa: PLC0415

    def leave(number: int) -> None:
        remove_unfinished()
        with contextlib.suppress(OSError):  # the terminal may be gone
            console.close()
            print(f"ladm: interrupted; what goes on where this one stopped: {command}", file=sys.stderr, flush=True)
        os._exit(128 + number)

    console.leave = leave
    with stopping_by_signals(leave):
        yield


def init(options: argparse.Namespace) -> int:
    """`ladm init`."""
    from ladm.flows.init.command import write_configuration  # noqa: PLC0415

    write_configuration(options.path, Path(options.out), options.store, replace=options.force)
    return DONE


def sql(options: argparse.Namespace) -> int:
    """`ladm sql`."""
    from ladm.flows.ask.query import as_csv, as_json, print_table, run_query  # noqa: PLC0415
    from ladm.flows.ask.timeout import checked_timeout  # noqa: PLC0415
    from ladm.flows.config import store_uri  # noqa: PLC0415
    from ladm.tasks.storage.file_systems import reached  # noqa: PLC0415

    def show(table: pa.Table) -> None:
        if options.format == "table":
            print_table(table)
        else:
            print({"json": as_json, "csv": as_csv}[options.format](table).rstrip("\n"))

    store, timeout = store_uri(options.store), checked_timeout(options.timeout)
    if options.query is not None:
        with reached("--store", store):
            table = run_query(store, options.query, options.run, timeout, _say)
        show(table)
        return DONE
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("sql: no QUERY, and no terminal to ask for one; give the query as an argument")
    from ladm.flows.ask.shell import shell  # noqa: PLC0415

    with reached("--store", store):
        shell(store, options.run, show, timeout)
    return DONE


def report(options: argparse.Namespace) -> int:
    """`ladm report`."""
    from ladm.flows.config import store_uri  # noqa: PLC0415
    from ladm.flows.report.page import write_report  # noqa: PLC0415
    from ladm.tasks.storage.file_systems import reached  # noqa: PLC0415

    store = store_uri(options.store)
    with reached("--store", store):
        where = write_report(store, options.run, options.out, options.heatmaps, _say)
    print(where)
    return DONE


def gc(options: argparse.Namespace) -> int:
    """`ladm gc`."""
    from ladm.flows.config import store_uri  # noqa: PLC0415
    from ladm.flows.orchestration.pruning import prune_database  # noqa: PLC0415
    from ladm.flows.runs.collect import collect, readable, summary  # noqa: PLC0415
    from ladm.tasks.models.cache import cache_root  # noqa: PLC0415
    from ladm.tasks.storage.file_systems import reached  # noqa: PLC0415

    store = store_uri(options.store)
    with reached("--store", store):
        sweep = collect(store, options.keep, options.dry_run)
    print(summary(sweep, options.dry_run))
    if freed := prune_database(cache_root(), options.dry_run):
        print(f"{'would free' if options.dry_run else 'freed'} {readable(freed)} of Prefect's database of past runs")
    return DONE


def evaluate(options: argparse.Namespace) -> int:
    """`ladm evaluate`."""
    from ladm.flows.config import load_config  # noqa: PLC0415
    from ladm.flows.console import Console  # noqa: PLC0415
    from ladm.flows.evaluation.request import question_of  # noqa: PLC0415
    from ladm.flows.orchestration.environment import prefect_server, quiet_prefect  # noqa: PLC0415
    from ladm.flows.orchestration.prefect_settings import check_prefect_settings  # noqa: PLC0415
    from ladm.tasks.models.cache import cache_root, ready_cache  # noqa: PLC0415

    config = load_config(options.config, options.set, options.store)
    with Console(sys.stderr) as console, _stopping_at_once(console):
        quiet_prefect(ready_cache(), console.say)
        check_prefect_settings()
        question = question_of(
            config,
            {"windows": options.windows, "seed": options.seed, "lists": options.lists},
            options.calibration,
            options.out,
            options.thorough,
            console,
        )
        from ladm.flows.dag import prepared  # noqa: PLC0415
        from ladm.flows.evaluation.evaluate import evaluate  # noqa: PLC0415
        from ladm.flows.evaluation.results import CONTRACT, print_evaluation, said, write_evaluation  # noqa: PLC0415

        with prepared.give_question(question), prefect_server(cache_root()), _results_alone_on_stdout():
            found = evaluate()
        written = write_evaluation(found, Path(options.out))
        if options.format == "json":
            _print_json([{name: row[name] for name in CONTRACT} for row in found.rows])
            for line in said(found):
                console.say(line)
        else:
            print_evaluation(found)
        for path in written:
            console.say(f"written: {path}")
    return DONE


def serve(options: argparse.Namespace) -> int:
    """`ladm serve`."""
    from ladm.flows.config import load_config  # noqa: PLC0415
    from ladm.flows.dag.preflight import preflight  # noqa: PLC0415
    from ladm.flows.orchestration.environment import lasting_prefect, lasting_server  # noqa: PLC0415
    from ladm.tasks.models.cache import cache_root, ready_cache  # noqa: PLC0415

    config = load_config(options.config, options.set, options.store)
    lasting_prefect(ready_cache(), _say)
    from ladm.flows.orchestration.deploy import ending_at_sigterm, nightly  # noqa: PLC0415
    from ladm.flows.orchestration.deploy import serve as serve_deployment  # noqa: PLC0415

    deployment = nightly(config, options.cron, options.timezone, options.name)
    notes = preflight(config, tell=_say).notes
    with ending_at_sigterm(), lasting_server(cache_root(), options.port) as address:
        print(f"serving curate/{options.name} at {options.cron!r} ({options.timezone}); Prefect: {address}", flush=True)
        for note in notes:
            _say(note)
        serve_deployment(deployment)
    return DONE


def deploy(options: argparse.Namespace) -> int:
    """`ladm deploy`."""
    from ladm.flows.config import load_config  # noqa: PLC0415
    from ladm.flows.orchestration.environment import lasting_prefect, users_server  # noqa: PLC0415
    from ladm.tasks.models.cache import ready_cache  # noqa: PLC0415

    config = load_config(options.config, options.set, options.store)
    lasting_prefect(ready_cache(), _say)
    from ladm.flows.orchestration.deploy import deploy as hand_over  # noqa: PLC0415
    from ladm.flows.orchestration.deploy import nightly  # noqa: PLC0415

    deployment = nightly(config, options.cron, options.timezone, options.name, options.pool)
    address = users_server()
    paused = hand_over(deployment, options.pool)
    when = f"at {options.cron!r} ({options.timezone})" if options.cron else "without a schedule"
    print(f"deployed curate/{options.name} to the work pool {options.pool!r} of {address}, {when}")
    if paused:
        print("it stays paused, as it was; on its page in Prefect, or its schedule's, it is switched on again")
    print(f"start a worker where it is to run: prefect worker start --pool {options.pool} --limit 1")
    return DONE


def score(options: argparse.Namespace) -> int:
    """`ladm score`."""
    import orjson  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    from ladm.flows.complaints import explain  # noqa: PLC0415
    from ladm.flows.score_files import score_files  # noqa: PLC0415
    from ladm.tasks.scorers.ladm import LadmConfig  # noqa: PLC0415

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
    from ladm.tasks.models.facts import model_facts  # noqa: PLC0415
    from ladm.tasks.models.resolve import resolve_model  # noqa: PLC0415

    resolved = resolve_model(options.reference, _say)
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
