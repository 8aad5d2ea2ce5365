"""Everything that can be refused is refused here, before any work: sources, window, model, layers, store."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Sequence

from ladm.flows.config import BY_CALIBRATION, FITTING, RunConfig
from ladm.flows.dag.calibrating import none_fits_line
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.settled_scorer import measuring_scorer, with_calibration
from ladm.flows.dag.stages import NAMES, STORE_FOLDERS, planned_rows, rows_of_stage, told_stages
from ladm.flows.runs.read import known_files
from ladm.tasks.condition import domains_named
from ladm.tasks.errors import ConfigError
from ladm.tasks.exporters.interface import ExportConfig
from ladm.tasks.exporters.tokens import settled, tokenizers_of
from ladm.tasks.filters.loading import load_filters, try_out
from ladm.tasks.models.facts import ModelFacts, model_facts
from ladm.tasks.models.resolve import ResolvedModel, resolve_model
from ladm.tasks.printable import printable
from ladm.tasks.reading.first_records import check_first_records
from ladm.tasks.reading.names import named, unsure
from ladm.tasks.reading.no_sources import own_folders
from ladm.tasks.reading.records import ConstDomain
from ladm.tasks.reading.sources import ListedFile, list_files, list_sources
from ladm.tasks.scorers.ladm import (
    LadmConfig,
    check_window_length,
    layers_left_out,
    left_out_line,
    measured_layers,
)
from ladm.tasks.scorers.loaded_model import check_device
from ladm.tasks.stages.benchmarks import check_benchmark
from ladm.tasks.stages.publish import check_publish
from ladm.tasks.storage.file_systems import io_errors, is_s3, reason_of
from ladm.tasks.storage.store import Store

RUNNER_PACKAGES = {"threads": (), "ray": ("prefect_ray", "ray"), "dask": ("prefect_dask", "distributed")}


def preflight(config: RunConfig, until: str = "export", tell: Callable[[str], None] | None = None) -> Plan:
    """Check that a run can be done, and find out all it needs to know.

    Args:
        config: The run's configuration.
        until: The last stage to do.
        tell: Gets a line of text when something slow happens (a model is downloaded), or files are no sources.

    Raises:
        UserError: One line that names the field and the fix.
    """
    check_until(config, until)
    check_runner(config)
    needs = {row.needs for row in planned_rows(config, until)}
    scored = "weights" in needs
    if scored:
        check_device_is_here(config)
    if scored and config.scorer.layers not in BY_CALIBRATION:
        check_window_length(config.scorer, config.window.length)
    check_domains(config)
    filters = check_filters(config)
    check_target(config, until)
    notes: list[str] = []
    own = own_folders(config.store, ("latest", *STORE_FOLDERS), config.publish.folder if config.publish else None)
    files = list_sources(config.sources, config.ingest.identity, own, tell)
    benchmarks = _list_benchmarks(config, own)
    check_first_records(files, config.sources)
    _check_store(config.store)
    files = _as_known(files, Store(config.store), notes)
    model = calibration = None
    layers: list[int] = []
    left_out: list[int] = []
    exports: list[ExportConfig] = []
    tokenizers: list[ResolvedModel] = []
    if scored or "tokenizer" in needs:
        model = resolve_model(config.scorer.model, tell)
        if model.tokenizer_digest is None:
            raise ConfigError(f"scorer.model: {config.scorer.model!r} has no tokenizer; give a model that has one")
        if scored:
            asked = config.scorer.layers
            config, calibration = with_calibration(config, model)
            scorer, facts = measuring_scorer(config.scorer, calibration), model_facts(model)
            check_window_length(scorer, config.window.length)
            layers, left_out = check_model(scorer, config.window.length, facts)
            check_beside(scorer, facts, config.window.length)
            if left_out:
                notes.append(left_out_line(scorer, left_out, config.window.length))
            if asked == FITTING and calibration is None:
                notes.append(none_fits_line(config))
        if until == NAMES[-1]:
            tokenizers = tokenizers_of(config.export, model, tell)
            pairs = zip(config.export, tokenizers, strict=True)
            exports = [settled(one, made_with, f"export.{number}") for number, (one, made_with) in enumerate(pairs)]
    stages = told_stages(config, until)
    return Plan(
        *(config, until, stages, files, model, layers, left_out, calibration, benchmarks, filters, exports, notes),
        tokenizers=tokenizers,
        n_layers=facts.n_layers if scored and model else 0,
    )


def check_until(config: RunConfig, until: str) -> None:
    """Refuse a last stage that there is not, or that nothing in the configuration asks for."""
    if until not in NAMES:
        raise ConfigError(f"--until: {until!r} is not a stage; choose one of {', '.join(NAMES)}")
    rows = rows_of_stage(until)
    if not any(row.asked(config) for row in rows):
        raise ConfigError(f"--until: {until!r} is not a stage of this run; set {rows[0].asked_by} to add it")


def check_runner(config: RunConfig) -> None:
    """Refuse a runner whose packages are not installed, or that cannot do what the configuration says."""
    runner, device = config.execution.runner, config.scorer.device
    if missing := [one for one in RUNNER_PACKAGES[runner] if importlib.util.find_spec(one) is None]:
        raise ConfigError(
            f"execution.runner: {runner} needs the package {missing[0].replace('_', '-')}, which is not installed; "
            f"pip install 'ladm[{runner}]'"
        )
    if runner != "threads" and device.startswith("cuda:"):
        raise ConfigError(f"scorer.device: {device!r} is one GPU of one machine; with {runner} give cuda")


def check_target(config: RunConfig, until: str) -> None:
    """Refuse a place that cannot be published to, in a run that comes to publish."""
    if config.publish is not None and until == NAMES[-1]:
        check_publish(config.publish)


def check_device_is_here(config: RunConfig) -> None:
    """Refuse a device that this machine does not have, where it is this machine that scores."""
    if config.execution.runner == "threads":
        check_device(config.scorer.device)


def check_domains(config: RunConfig) -> None:
    """Refuse quotas and conditions for domains that there cannot be, where every source gives a constant one.

    What others hold is known when they are read; then the summary tells which quota was missed.
    """
    there = [source.domain.const for source in config.sources if isinstance(source.domain, ConstDomain)]
    if len(there) < len(config.sources):
        return
    asked = [(f"select.quotas[{number}].domain", quota.domain) for number, quota in enumerate(config.select.quotas)]
    asked += [("select.where", domain) for domain in sorted(domains_named(config.select.where))]
    for place, domain in asked:
        if domain not in there:
            close = difflib.get_close_matches(domain, there, n=1)
            hint = f"did you mean {close[0]!r}? The" if close else "the"
            raise ConfigError(
                f"{place}: no source has the domain {printable(domain, 60)!r}; {hint} domains of the sources are "
                f"{printable(', '.join(dict.fromkeys(there)))}"
            )


def check_filters(config: RunConfig) -> list[str]:
    """Refuse filters that cannot be had as they are asked for; gives what each is known by."""
    filters = load_filters(config.filters)
    for one in filters:
        try_out(one)
    return [one.version for one in filters]


def _list_benchmarks(config: RunConfig, own: Sequence[str]) -> list[ListedFile]:
    """The files of `decontaminate.against`, each found to begin with a passage."""
    listed = []
    for number, entry in enumerate(config.decontaminate.against if config.decontaminate else []):
        place = f"decontaminate.against[{number}]"
        files = list_files(entry, f"{place}.uri", config.ingest.identity, own)
        for file in files:
            check_benchmark(file, entry, place)
        # By their addresses, as what was made of them is kept in the store.
        listed += [ListedFile(file.replaced(name=""), entry) for file in files]
    return listed


def _as_known(listed: Sequence[ListedFile], store: Store, notes: list[str]) -> list[ListedFile]:
    """The files, each with a name of its own, and with the one that it had in earlier runs of the store."""
    known = known_files(store, {one.file.uri for one in listed})
    files = named([one.file for one in listed], known)
    if anew := unsure(files, known):
        notes.append(
            f"sources: {len(anew):,} files, the first {printable(anew[0].uri, 500)}, may be ones that the store knew "
            "elsewhere, but several are alike and it cannot be told which; their documents are scored as new ones"
        )
    return [ListedFile(file, one.config) for file, one in zip(files, listed, strict=True)]


def check_model(scorer: LadmConfig, length: int, facts: ModelFacts) -> tuple[list[int], list[int]]:
    """Refuse layers that the model does not have or that do not see the whole window, and windows it cannot hold.

    Returns:
        The layers that make the score, and the layers that `scorer.layers: all` leaves out.
    """
    layers = measured_layers(scorer, facts, length)
    if facts.max_positions is not None and length > facts.max_positions:
        raise ConfigError(
            f"window.length: {length} is more than the {facts.max_positions} positions of "
            f"{scorer.model!r}; shorten the window or choose a model of longer context"
        )
    return layers, layers_left_out(scorer, facts, layers)


def check_beside(scorer: LadmConfig, facts: ModelFacts, length: int) -> None:
    """Refuse a scorer beside `ladm` that asks for attention which the model does not have."""
    whole = facts.whole_layers(length)
    for name in scorer.beside.names:
        if wrong := [layer for layer in scorer.beside.needs_of(name, length).layers if layer not in whole]:
            raise ConfigError(
                f"scorer.beside.{name}: layer {wrong[0]} of {scorer.model!r} is not there or does not see all {length} "
                f"tokens of a window; set scorer.beside.{name}.layer to one of {', '.join(map(str, whole))}"
            )


def _check_store(uri: str) -> None:
    """Refuse a store that cannot be written, by writing to it."""
    try:
        store = Store(uri, impatient=True)
        if is_s3(uri):
            _check_bucket(store)
        store.write_bytes(".writable", b"")
        store.remove(".writable")
    except ConfigError:
        raise
    except io_errors(ValueError, ImportError, NotImplementedError) as error:
        reason = reason_of(error)
        raise ConfigError(f"store: {uri!r} cannot be written ({reason}); give a folder or s3://bucket/prefix") from None


def _check_bucket(store: Store) -> None:
    """Refuse a bucket that does not exist: some servers would make one of any misspelt name."""
    bucket = store.root.split("/", 1)[0]
    if not bucket:
        raise ConfigError(f"store: {store.uri!r} names no bucket; give s3://bucket/prefix")
    try:
        store.fs.call_s3("head_bucket", Bucket=bucket)
    except FileNotFoundError:
        raise ConfigError(f"store: there is no bucket {bucket!r}; create it, or give s3://bucket/prefix") from None
    except PermissionError:
        pass  # who may write need not be allowed to ask; writing will tell
