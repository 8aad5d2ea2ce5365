"""The dataset card: a README beside the export that says what was selected, from what, by which score, how.

It is a stage's output like the data itself, made from the ranking and the configuration; everything that came
from the data (domain names, licences) is escaped.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import yaml

from tasks import duck
from tasks.job import Job, Outcome, Stage
from tasks.manifest import Counts, Shard
from tasks.schema import DOCUMENTS, RANKING
from tasks.store import Store

ALLOCATIONS = {
    "proportional": "the same top share of every domain",
    "published": "whole percents of every domain's documents, up to the one that passes the budget",
    "uniform": "the same number of tokens from every domain",
    "quotas": "tokens as listed for domains and document lengths",
}
"""What each allocation does, in words."""


HOW_TO_READ = {
    "parquet": "`datasets.load_dataset(folder)`, or any reader of Parquet",
    "jsonl.zst": "the Pile's form, `text` and `meta`; `datasets.load_dataset(folder)`",
    "datasets": "`datasets.load_from_disk(folder)`",
    "mds": "`streaming.StreamingDataset(local=folder, split=…)`; column `tokens`",
    "megatron": "`megatron.core.datasets.indexed_dataset.IndexedDataset(prefix of a .bin)`; types in `tokens.json`",
    "npy": "flat token ids without a header, `numpy.memmap(file, dtype)`; OLMo-core's `NumpyFSLDataset`; type and "
    "end-of-document token in `tokens.json`, boundaries in `.csv.gz`",
}
"""Format → how its folder is opened."""

RUN_ID = "<run_id>"
"""Stands in a card until it is published: the same selection under the same configuration has the same card."""

SOURCES_LISTED = 50


def card(job: Job, store: Store, key: str) -> Outcome:
    """Write the card of one ranking. Inputs: the ranking, its allocation, and the document shards that `export` reads.

    The configuration is the run's own.
    """
    ranking, allocation, *documents = job.inputs
    with duck.connect(store) as connection:
        duck.view_of_shards(connection, "ranking", store, [ranking], RANKING)
        duck.view_of_shards(connection, "documents", store, documents, DOCUMENTS)
        domains = connection.execute(duck.statement("card")).to_arrow_table().to_pylist()
        licences = connection.execute(duck.statement("licences")).to_arrow_table().to_pylist()
        lengths = connection.execute(duck.statement("card_lengths")).to_arrow_table().to_pylist()
        sources = connection.execute(duck.statement("card_sources")).to_arrow_table().to_pylist()
    targets = store.read_shard(allocation).to_pylist()
    path = store.shard_path("export", key, "md")
    content = card_text(job.config, domains, targets, licences, lengths, sources, ranking.key).encode()
    store.write_bytes(path, content)
    return Outcome(
        counts=Counts(received=ranking.rows, kept=ranking.rows),
        files=[Shard(key=key, path=path, bytes=len(content), rows=0, sha256=hashlib.sha256(content).hexdigest())],
    )


def card_text(
    config: dict[str, Any],
    domains: list[dict[str, Any]],
    targets: list[dict[str, Any]],
    licences: list[dict[str, Any]],
    lengths: list[dict[str, Any]],
    sources: list[dict[str, Any]],
    ranking_key: str,
) -> str:
    """The card as Markdown.

    Args:
        config: `run` (the run's configuration) and its `config_sha256`, `model` (reference and digest), `versions`.
        domains: Rows of `sql/card.sql`.
        targets: Rows of `sql/allocation.sql`.
        licences: Rows of `sql/licences.sql`.
        lengths: Rows of `sql/card_lengths.sql`.
        sources: Rows of `sql/card_sources.sql`.
        ranking_key: Content key of the ranking.
    """
    run, model = config["run"], config["model"]
    scorer, window = run["scorer"], run["window"]
    total = {
        name: sum(int(row[name]) for row in domains)
        for name in ("documents", "tokens", "selected_documents", "selected_tokens")
    }
    lines = [
        *_front_matter(run["export"]),
        "# Long documents chosen by attention",
        "",
        f"{total['selected_documents']:,} of {total['documents']:,} documents "
        f"({total['selected_tokens']:,} of {total['tokens']:,} tokens) in {len(domains)} domains, selected by "
        "their contextual dependency score (CDS): how much the parts of a document attend to each other over long "
        "distances in a small language model. Method: LADM, arXiv 2503.02502.",
        "",
        f"- Calculator: `{plain(model['reference'])}`, weights and config sha256 `{model['digest']}`",
        f"- Window: {window['length']:,} tokens, take `{window['take']}`; score: formula `{scorer['formula']}`, span "
        f"{scorer['span']}, d_afs {scorer['d_afs']}, d_cds {scorer['d_cds']}, layers `{scorer['layers']}`, ablation "
        f"`{scorer['ablation']}`, a document's score is the {run['select']['document_score']} of its windows",
        f"- {selection_text(run['select'])}. Tokens of documents longer than what was tokenized are extrapolated "
        "(`doc_tokens_exact` is false for them)",
        f"- Ranking `{ranking_key}`; versions: {', '.join(f'{k} {v}' for k, v in sorted(config['versions'].items()))}",
        f"- Run `{RUN_ID}`, configuration sha256 `{config['config_sha256']}`. A row's `export_key` is in the "
        "`run.json` of every run that exported the same",
        "",
        "Scores of windows of different length, or of different models, must not be compared.",
        "",
        "## Domains",
        "",
        "| domain | documents | tokens | selected | tokens selected |",
        "|---|---:|---:|---:|---:|",
        *(_domain_line(row) for row in domains),
        "",
        "## Scores of all ranked documents",
        "",
        "The threshold is the lowest score that was selected.",
        "",
        "| domain | lowest | 5 % | 25 % | median | 75 % | 95 % | highest | threshold |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(_score_line(row) for row in domains),
        "",
        "## Lengths",
        "",
        "| domain | tokens of a document | documents | tokens | selected | tokens selected |",
        "|---|---|---:|---:|---:|---:|",
        *(_length_line(row) for row in lengths),
        "",
        "## Allocation",
        "",
        _shortage_text(targets),
        "",
        "| domain | document length | target tokens | tokens selected | documents | short | why |",
        "|---|---|---:|---:|---:|---:|---|",
        *(_target_line(row) for row in targets),
        "",
        "## Sources of the selected documents",
        "",
        "| source | documents | tokens |",
        "|---|---:|---:|",
        *(f"| {plain(row['source'])} | {row['documents']:,} | {row['tokens']:,} |" for row in sources[:SOURCES_LISTED]),
        *_sources_left_out(sources[SOURCES_LISTED:]),
        "",
        "## Licences of the selected documents, as their metadata names them",
        "",
        "| licence | documents | tokens |",
        "|---|---:|---:|",
        *(f"| {plain(row['licence'])} | {row['documents']:,} | {row['tokens']:,} |" for row in licences),
        "",
        "## Files",
        "",
        *(f"- `{one['format']}/`: {HOW_TO_READ[one['format']]}" for one in run["export"]),
        "",
        "Formats of text have the columns `doc_id`, `domain`, `rank` (1 is the best of its domain), `score`,",
        "`windows`, `doc_tokens`, `text`, and what leads back to the origin: `source` (URI), `line`, `offset`,",
        "`sha256` and `bytes` of the text, `meta` (the record's other fields as JSON), `export_key`.",
        "Formats of tokens have the same, but for the text, in `….pieces.parquet`: one row a run of tokens of one",
        "document, with the `row` of the part and the `row_start` where it stands, and `doc_start`, where it begins in",
        "its document.",
        "",
        "## How to make it again",
        "",
        "Save this as `config.yaml` and run `ladm run config.yaml`; unchanged sources give the same selection.",
        "",
        "```yaml",
        yaml.safe_dump(run, sort_keys=False, allow_unicode=False).rstrip().replace("```", "'''"),
        "```",
        "",
    ]
    return "\n".join(lines)


def _front_matter(exports: list[dict[str, Any]]) -> list[str]:
    """What lets `datasets.load_dataset` open the folder that the card lies in, as the Hugging Face hub does."""
    if not any(one["format"] == "parquet" for one in exports):
        return []
    return ["---", "configs:", "- config_name: default", "  data_dir: parquet", "---", ""]


def _domain_line(row: dict[str, Any]) -> str:
    return (
        f"| {plain(row['domain'])} | {row['documents']:,} | {row['tokens']:,} | {row['selected_documents']:,} "
        f"| {row['selected_tokens']:,} |"
    )


def _score_line(row: dict[str, Any]) -> str:
    q05, q25, q75, q95 = row["quantiles"]
    scores = (row["lowest"], q05, q25, row["middle"], q75, q95, row["highest"])
    threshold = "none selected" if row["threshold"] is None else f"{row['threshold']:.4g}"
    return f"| {plain(row['domain'])} | {' | '.join(f'{score:.4g}' for score in scores)} | {threshold} |"


def _length_line(row: dict[str, Any]) -> str:
    return (
        f"| {plain(row['domain'])} | {row['bucket_min']:,} to {2 * row['bucket_min'] - 1:,} | {row['documents']:,} "
        f"| {row['tokens']:,} | {row['selected_documents']:,} | {row['selected_tokens']:,} |"
    )


def _sources_left_out(sources: list[dict[str, Any]]) -> list[str]:
    if not sources:
        return []
    documents, tokens = (sum(row[name] for row in sources) for name in ("documents", "tokens"))
    return [f"| {len(sources):,} more | {documents:,} | {tokens:,} |"]


def selection_text(select: dict[str, Any]) -> str:
    """The `select:` section in words, without a full stop."""
    budget = select["budget_tokens"]
    words = [
        f"Budget: {f'{budget:,} tokens' if budget else 'none'}",
        f"allocation `{select['allocation']}`: {ALLOCATIONS[select['allocation']]}",
    ]
    if select["min_tokens_per_domain"]:
        words.append(f"at least {select['min_tokens_per_domain']:,} tokens of every domain")
    if select["max_source_share"]:
        words.append(f"at most {select['max_source_share']:.4g} of it from one source file")
    if select["replay"]:
        words.append(
            f"{select['replay']['share']:.4g} of it short documents, drawn with seed {select['replay']['seed']}"
        )
    if select["max_copies"] > 1:
        words.append(f"a document is taken at most {select['max_copies']:,} times")
    for end in ("top", "bottom"):
        if select[f"drop_{end}"]:
            words.append(f"without the {end} {select[f'drop_{end}']:.4g} of every domain's documents")
    return "; ".join(words)


def _shortage_text(targets: list[dict[str, Any]]) -> str:
    exhausted = [row for row in targets if row["short_tokens"] and row["exhausted"]]
    if not exhausted:
        return "No target is short for want of documents."
    return (
        f"{len(exhausted)} of {len(targets)} targets are short for want of documents, by "
        f"{sum(row['short_tokens'] for row in exhausted):,} tokens."
    )


def _target_line(row: dict[str, Any]) -> str:
    length = "any"
    if row["bucket_min"] is not None or row["bucket_max"] is not None:
        end = "" if row["bucket_max"] is None else f", fewer than {row['bucket_max']:,}"
        length = f"at least {row['bucket_min'] or 0:,}{end}"
    if row["role"] == "replay":
        length = "fills no window"
    target = "none" if row["target_tokens"] is None else f"{row['target_tokens']:,}"
    why = ""
    if row["short_tokens"]:
        why = "no more documents" if row["exhausted"] else "the next document would not fit"
    return (
        f"| {plain(row['domain'])} | {length} | {target} | {row['selected_tokens']:,} | {row['documents']:,} "
        f"| {row['short_tokens']:,} | {why} |"
    )


def plain(text: str) -> str:
    """Text from the data as inert Markdown on one line, at most 120 characters."""
    one_line = "".join(character if character.isprintable() else " " for character in str(text))[:120]
    return re.sub(r"([\\`*_{}\[\]<>()#|!])", r"\\\1", one_line)


STAGE = Stage(name="card", version="3", compute=card)
