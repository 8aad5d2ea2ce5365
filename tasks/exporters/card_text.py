"""The words of the dataset card. Everything that came from the data (domain names, licences, paths) is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ladm.tasks.printable import printable

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
SELECTED = ("selected_documents", "selected_rows", "selected_tokens")
COUNTED = ("documents", "copies", "tokens")


@dataclass(frozen=True)
class CardFacts:
    """What a card tells, besides the configuration. Rows are those of the statements in `sql/`.

    Attributes:
        domains: `card.sql`.
        targets: `allocation.sql`.
        licences: `licences.sql`.
        lengths: `card_lengths.sql`.
        sources: `card_sources.sql`.
        dropped: `card_dropped.sql`.
        ranking_key: Content key of the ranking.
    """

    domains: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    licences: list[dict[str, Any]]
    lengths: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    ranking_key: str


def card_text(config: dict[str, Any], facts: CardFacts) -> str:
    """The card as Markdown.

    Args:
        config: `run` (the run's configuration) and its `config_sha256`, `model` (reference and digest), `versions`.
        facts: What was ranked, selected and left out.
    """
    run, model = config["run"], config["model"]
    scorer, window, select = run["scorer"], run["window"], run["select"]
    lines = [
        *_front_matter(run["export"]),
        "# Long documents chosen by attention",
        "",
        *_summary(facts, select),
        "",
        f"- Calculator: `{plain(model['reference'])}`, weights and config sha256 `{model['digest']}`",
        f"- Window: {window['length']:,} tokens, take `{window['take']}`; score: formula `{scorer['formula']}`, span "
        f"{scorer['span']}, d_afs {scorer['d_afs']}, d_cds {scorer['d_cds']}, layers `{scorer['layers']}`, ablation "
        f"`{scorer['ablation']}`, ranked by `{select['rank_by']}`, a document's score is the "
        f"{select['document_score']} of its windows",
        f"- {selection_text(select)}. Tokens of documents longer than what was tokenized are extrapolated "
        "(`doc_tokens_exact` is false for them)",
        f"- Ranking `{facts.ranking_key}`; versions: "
        f"{', '.join(f'{package} {version}' for package, version in sorted(config['versions'].items()))}",
        f"- Run `{RUN_ID}`, configuration sha256 `{config['config_sha256']}`. A row's `export_key` is in the "
        "`jobs.parquet` of every run that exported the same",
        "",
        "Scores of windows of different length, or of different models, must not be compared.",
        "",
        "## Domains",
        "",
        *_table(
            "domain | documents: | tokens: | selected: | rows: | tokens selected:",
            ((plain(row["domain"]), *_numbers(row, "documents", "tokens", *SELECTED)) for row in facts.domains),
        ),
        "",
        "## Scores of all ranked documents",
        "",
        "The threshold is the lowest score that was selected.",
        "",
        *_table(
            "domain | lowest: | 5 %: | 25 %: | median: | 75 %: | 95 %: | highest: | threshold:",
            map(_scores, facts.domains),
        ),
        "",
        "## Lengths",
        "",
        *_table(
            "domain | tokens of a document | documents: | tokens: | selected: | rows: | tokens selected:",
            (
                (plain(row["domain"]), _bucket(row), *_numbers(row, "documents", "tokens", *SELECTED))
                for row in facts.lengths
            ),
        ),
        "",
        "## Allocation",
        "",
        _shortage_text(facts.targets),
        "",
        *_table(
            "domain | document length | target tokens: | tokens selected: | documents: | short: | why",
            map(_target, facts.targets),
        ),
        "",
        "## Left out before scoring",
        "",
        *_left_out(run, facts.dropped),
        "",
        "## Sources of the selected documents",
        "",
        *_table(
            "source | documents: | rows: | tokens:",
            [
                *((plain(row["source"]), *_numbers(row, *COUNTED)) for row in facts.sources[:SOURCES_LISTED]),
                *_more_sources(facts.sources[SOURCES_LISTED:]),
            ],
        ),
        "",
        "## Licences of the selected documents, as their metadata names them",
        "",
        *_table(
            "licence | documents: | rows: | tokens:",
            ((plain(row["licence"]), *_numbers(row, *COUNTED)) for row in facts.licences),
        ),
        "",
        "## Files",
        "",
        *(f"- `{one['format']}/`: {HOW_TO_READ[one['format']]}" for one in run["export"]),
        "",
        "Formats of text have the columns `doc_id`, `domain`, `rank` (1 is the best of its domain), `score`,",
        "`windows`, `doc_tokens`, `role` (`replay` for a short document, else `long`), `copy` (0, and 1, 2, … for a",
        "document that was selected again), `text`, and what leads back to the origin: `source` (URI), `line`,",
        "`offset`, `sha256` and `bytes` of the text, `meta` (the record's other fields as JSON), `export_key`.",
        "Formats of tokens have the same, but for the text, in `….pieces.parquet`: one row a run of tokens of one",
        "document, with the `row` of the part and the `row_start` where it stands, and `doc_start`, where it begins in",
        "its document.",
        "",
        "## How to make it again",
        "",
        "Save this as `config.yaml` and run `ladm run config.yaml`; unchanged sources give the same selection.",
        "The run's `sources.parquet` has the size and version of every source file.",
        "",
        "```yaml",
        yaml.safe_dump(run, sort_keys=False, allow_unicode=False).rstrip().replace("```", "'''"),
        "```",
        "",
    ]
    return "\n".join(lines)


def _table(header: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; columns whose names end with a colon hold numbers."""
    names = header.split(" | ")
    return [
        f"| {' | '.join(name.rstrip(':') for name in names)} |",
        f"|{'|'.join('---:' if name.endswith(':') else '---' for name in names)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _numbers(row: dict[str, Any], *names: str) -> list[str]:
    return [f"{row[name]:,}" for name in names]


def _summary(facts: CardFacts, select: dict[str, Any]) -> list[str]:
    total = {
        name: sum(int(row[name]) for row in facts.domains)
        for name in ("documents", "tokens", "selected_documents", "selected_rows", "selected_tokens")
    }
    by = "contextual dependency score (CDS)" if select["rank_by"] == "ladm" else f"score `{select['rank_by']}`"
    lines = [
        f"{total['selected_documents']:,} of {total['documents']:,} documents "
        f"({total['selected_tokens']:,} of {total['tokens']:,} tokens) in {len(facts.domains)} domains, selected by "
        f"their {by}. The contextual dependency score tells how much the parts of a document attend to each other "
        "over long distances in a small language model. Method: LADM, arXiv 2503.02502.",
    ]
    if (again := total["selected_rows"] - total["selected_documents"]) > 0:
        lines += [
            "",
            f"Documents that were selected more than once add {again:,} rows: {total['selected_rows']:,} rows in all. "
            "Their tokens are counted as often.",
        ]
    replayed = [row for row in facts.lengths if row["role"] == "replay"]
    if select["replay"]:
        documents, tokens = (sum(row[name] for row in replayed) for name in ("selected_documents", "selected_tokens"))
        lines += ["", f"Beside them {documents:,} short documents ({tokens:,} tokens) that fill no window, at random."]
    return lines


def _front_matter(exports: list[dict[str, Any]]) -> list[str]:
    """What lets `datasets.load_dataset` open the folder that the card lies in, as the Hugging Face hub does."""
    if not any(one["format"] == "parquet" for one in exports):
        return []
    return ["---", "configs:", "- config_name: default", "  data_dir: parquet", "---", ""]


def _scores(row: dict[str, Any]) -> list[str]:
    q05, q25, q75, q95 = row["quantiles"]
    scores = (row["lowest"], q05, q25, row["middle"], q75, q95, row["highest"])
    threshold = "none selected" if row["threshold"] is None else f"{row['threshold']:.4g}"
    return [plain(row["domain"]), *(f"{score:.4g}" for score in scores), threshold]


def _bucket(row: dict[str, Any]) -> str:
    replayed = ", replayed" if row["role"] == "replay" else ""
    return f"{row['bucket_min']:,} to {2 * row['bucket_min'] - 1:,}{replayed}"


def _left_out(run: dict[str, Any], dropped: list[dict[str, Any]]) -> list[str]:
    asked = []
    if deduplicate := run["deduplicate"]:
        near = deduplicate["near"]
        asked += ["exact duplicates"] if deduplicate["exact"] else []
        asked += [f"near duplicates (similarity from {near['threshold']:.4g} on)"] if near else []
    if decontaminate := run["decontaminate"]:
        against = ", ".join(plain(one["uri"]) for one in decontaminate["against"])
        asked.append(f"passages of {against} ({decontaminate['ngram']} words in common)")
    if not asked:
        return ["Neither duplicates nor benchmark passages were looked for."]
    looked = f"Looked for: {'; '.join(asked)}."
    if not dropped:
        return [f"{looked} None was found."]
    documents, windows = (sum(row[name] for row in dropped) for name in ("documents", "windows"))
    rows = ((plain(row["reason"]), plain(row["domain"]), *_numbers(row, "documents", "windows")) for row in dropped)
    return [
        f"{looked} {documents:,} documents were dropped, so that {windows:,} windows were not scored.",
        "",
        *_table("reason | domain | documents: | windows:", rows),
    ]


def _more_sources(sources: list[dict[str, Any]]) -> list[list[str]]:
    if not sources:
        return []
    return [[f"{len(sources):,} more", *(f"{sum(row[name] for row in sources):,}" for name in COUNTED)]]


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


def _target(row: dict[str, Any]) -> list[str]:
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
    numbers = _numbers(row, "selected_tokens", "documents", "short_tokens")
    return [plain(row["domain"]), length, target, *numbers, why]


def plain(text: str) -> str:
    """Text from the data as inert Markdown on one line, at most 120 characters before it is escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#|!])", r"\\\1", printable(str(text), 120))
