"""The words of the dataset card. Everything that came from the data (domain names, licences, paths) is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from ladm.tasks.exporters.formats import EXPORTERS
from ladm.tasks.exporters.hub_header import hub_header
from ladm.tasks.exporters.markdown import plain, table
from ladm.tasks.exporters.selection_text import selection_text
from ladm.tasks.exporters.shown_paths import SOMEWHERE, below, without_local_paths

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
        not_ranked: `card_not_ranked.sql`.
        filtered: `card_filtered.sql`.
        languages: `card_languages.sql`.
        splits: The row of `card_splits.sql`; empty where nothing is selected.
        ranking_key: Content key of the ranking.
    """

    domains: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    licences: list[dict[str, Any]]
    lengths: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    not_ranked: list[dict[str, Any]]
    filtered: list[dict[str, Any]]
    languages: list[dict[str, Any]]
    splits: list[float]
    ranking_key: str


def card_text(config: dict[str, Any], facts: CardFacts) -> str:
    """The card as Markdown.

    Args:
        config: `run` (the run's configuration) and its `config_sha256`, `model` (reference and digest), `versions`.
        facts: What was ranked, selected and left out.
    """
    shown = without_local_paths(config)
    run = shown["run"]
    sections = {
        "Domains": _domains(facts),
        "Scores of all ranked documents": _scores(facts),
        "Lengths": _lengths(facts),
        "Allocation": _allocation(facts),
        "Left out before scoring": [*_left_out(run, facts.dropped), *_filtered(run, facts.filtered)],
        **({"Scored, and held back from the ranking": _held_back(facts)} if facts.not_ranked else {}),
        "Sources of the selected documents": _sources(facts, [one["uri"] for one in config["run"]["sources"]]),
        "Licences of the selected documents, as their metadata names them": _licences(facts),
        "Files": _files(run["export"]),
        "How to make it again": _recipe(run),
    }
    lines = [*_header(run, facts), "# Long documents chosen by attention", "", *_opening(shown, facts)]
    for title, section in sections.items():
        lines += ["", f"## {title}", "", *section]
    return "\n".join([*lines, ""])


def _opening(config: dict[str, Any], facts: CardFacts) -> list[str]:
    run, model = config["run"], config["model"]
    scorer, window, select = run["scorer"], run["window"], run["select"]
    return [
        *_summary(facts, select),
        "",
        f"- Calculator: `{plain(model['reference'])}`, weights and config sha256 `{model['digest']}`",
        f"- Window: {window['length']:,} tokens, take `{window['take']}`; score: formula `{scorer['formula']}`, span "
        f"{scorer['span']}, d_afs {scorer['d_afs']}, d_cds {scorer['d_cds']}, layers `{scorer['layers']}`, ablation "
        f"`{scorer['ablation']}`, ranked by `{select['rank_by']}`, a document's score is the "
        f"{select['document_score']} of its windows",
        *_calibration(config.get("calibration")),
        f"- {selection_text(select, plain)}. Tokens of documents longer than what was tokenized are extrapolated "
        "(`doc_tokens_exact` is false for them)",
        f"- Ranking `{facts.ranking_key}`; versions: "
        f"{', '.join(f'{package} {version}' for package, version in sorted(config['versions'].items()))}",
        f"- Run `{RUN_ID}`, configuration sha256 `{config['config_sha256']}`. A row's `export_key` is in the "
        "`jobs.parquet` of every run that exported the same",
        "",
        "Scores of windows of different length, or of different models, must not be compared.",
    ]


def _calibration(told: dict[str, Any] | None) -> list[str]:
    """What the scores were weighed by, where the run made that itself."""
    if told is None:
        return []
    made = told["made_from"]
    worth = ", ".join(f"{plain(kind)} {auc:.2f}" for kind, auc in told["left_out"].items()) or "not measured"
    return [
        f"- Calibration: made by the run from {made['windows']:,} windows of the corpus and of the sample that comes "
        "with ladm. How often a whole document that it had not seen scored above one of another kind, of the same "
        f"domain: {worth}"
    ]


def _domains(facts: CardFacts) -> list[str]:
    rows = ((plain(row["domain"]), *_numbers(row, "documents", "tokens", *SELECTED)) for row in facts.domains)
    return table("domain | documents: | tokens: | selected: | rows: | tokens selected:", rows)


def _scores(facts: CardFacts) -> list[str]:
    header = "domain | lowest: | 5 %: | 25 %: | median: | 75 %: | 95 %: | highest: | threshold:"
    return [
        "The threshold is the lowest score that was selected.",
        "",
        *table(header, map(_domain_scores, facts.domains)),
    ]


def _lengths(facts: CardFacts) -> list[str]:
    rows = (
        (plain(row["domain"]), _bucket(row), *_numbers(row, "documents", "tokens", *SELECTED)) for row in facts.lengths
    )
    header = "domain | tokens of a document | documents: | tokens: | selected: | rows: | tokens selected:"
    return table(header, rows)


def _allocation(facts: CardFacts) -> list[str]:
    header = "domain | document length | target tokens: | tokens selected: | documents: | short: | why"
    return [_shortage_text(facts.targets), "", *table(header, map(_target, facts.targets))]


def _sources(facts: CardFacts, roots: list[str]) -> list[str]:
    listed, more = facts.sources[:SOURCES_LISTED], facts.sources[SOURCES_LISTED:]
    rows = [[plain(below(row["source"], roots)), *_numbers(row, *COUNTED)] for row in listed]
    if more:
        rows.append([f"{len(more):,} more", *(f"{sum(row[name] for row in more):,}" for name in COUNTED)])
    return table("source | documents: | rows: | tokens:", rows)


def _licences(facts: CardFacts) -> list[str]:
    rows = ((plain(row["licence"]), *_numbers(row, *COUNTED)) for row in facts.licences)
    return table("licence | documents: | rows: | tokens:", rows)


def _files(exports: list[dict[str, Any]]) -> list[str]:
    return [
        *(f"- `{one['format']}/`: {EXPORTERS[one['format']].how_to_read}{_tokenizer(one)}" for one in exports),
        "",
        "Formats of text have the columns `doc_id`, `domain`, `rank` (1 is the best of its domain), `score`,",
        "`windows`, `doc_tokens`, `role` (`replay` for a short document, else `long`), `copy` (0, and 1, 2, … for a",
        "document that was selected again), `text`, and what leads back to the origin: `source` (URI), `line`,",
        "`offset`, `sha256` and `bytes` of the text, `meta` (the record's other fields as JSON), `export_key`.",
        "Formats of tokens have the same, but for the text, in `….pieces.parquet`: one row a run of tokens of one",
        "document, with the `row` of the part and the `row_start` where it stands, and `doc_start`, where it begins in",
        "its document.",
    ]


def _tokenizer(export: dict[str, Any]) -> str:
    """By whose tokenizer, if not by that of the calculator."""
    reference = export.get("tokenizer")
    return f"; tokens by the tokenizer of `{plain(reference)}`" if reference else ""


def _recipe(run: dict[str, Any]) -> list[str]:
    return [
        "Save this as `config.yaml` and run `ladm run config.yaml`; unchanged sources give the same selection.",
        f"Where it says `{SOMEWHERE}`, put where things lie on your machine.",
        "The run's `sources.parquet` has the address, size and version of every source file.",
        "",
        "```yaml",
        yaml.safe_dump(run, sort_keys=False, allow_unicode=False).rstrip().replace("```", "'''"),
        "```",
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


def _header(run: dict[str, Any], facts: CardFacts) -> list[str]:
    rows = sum(row["selected_rows"] for row in facts.lengths)
    languages = [row["language"] for row in facts.languages]
    return hub_header(run["export"], run.get("card") or {}, facts.licences, languages, rows, facts.splits)


def _domain_scores(row: dict[str, Any]) -> list[str]:
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
        *table("reason | domain | documents: | windows:", rows),
    ]


def _held_back(facts: CardFacts) -> list[str]:
    rows = (
        (plain(row["reason"]), plain(row["domain"]), *_numbers(row, "documents", "tokens")) for row in facts.not_ranked
    )
    return table("reason | domain | documents: | tokens:", rows)


def _filtered(run: dict[str, Any], filtered: list[dict[str, Any]]) -> list[str]:
    """What the filters dropped, if the run has any: a configuration without them does not speak of them."""
    if not run.get("filters"):
        return []
    documents = sum(row["documents"] for row in filtered)
    rows = ((plain(row["reason"]), plain(row["domain"]), *_numbers(row, "documents")) for row in filtered)
    listed = ["", *table("filter and reason | domain | documents:", rows)] if filtered else []
    return ["", f"The filters dropped {documents:,} documents before they were tokenized.", *listed]


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
