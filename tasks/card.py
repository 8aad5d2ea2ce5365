"""The dataset card: a README beside the export that says what was selected, from what, by which score, how.

It is a stage's output like the data itself, made from the ranking and the configuration; everything that came
from the data (domain names, licences) is escaped.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from tasks import duck
from tasks.job import Job, Outcome, Stage
from tasks.manifest import Counts, Shard
from tasks.schema import DOCUMENTS, RANKING
from tasks.store import Store


def card(job: Job, store: Store, key: str) -> Outcome:
    """Write the card of one ranking. Inputs as for `export`; the configuration is the run's own."""
    ranking, *documents = job.inputs
    with duck.connect(store) as connection:
        duck.view_of_shards(connection, "ranking", store, [ranking], RANKING)
        duck.view_of_shards(connection, "documents", store, documents, DOCUMENTS)
        domains = connection.execute(duck.statement("card")).to_arrow_table().to_pylist()
        licences = connection.execute(duck.statement("licences")).to_arrow_table().to_pylist()
    path = store.shard_path("export", key, "md")
    content = card_text(job.config, domains, licences, ranking.key).encode()
    store.write_bytes(path, content)
    return Outcome(
        counts=Counts(received=ranking.rows, kept=ranking.rows),
        files=[Shard(key=key, path=path, bytes=len(content), rows=0)],
    )


def card_text(
    config: dict[str, Any], domains: list[dict[str, Any]], licences: list[dict[str, Any]], ranking_key: str
) -> str:
    """The card as Markdown.

    Args:
        config: `run` (the run's configuration), `model` (reference and digest), `versions`.
        domains: Rows of `sql/card.sql`.
        licences: Rows of `sql/licences.sql`.
        ranking_key: Content key of the ranking.
    """
    run, model = config["run"], config["model"]
    scorer, window = run["scorer"], run["window"]
    total = {
        name: sum(int(row[name]) for row in domains)
        for name in ("documents", "tokens", "selected_documents", "selected_tokens")
    }
    budget = run["select"]["budget_tokens"]
    lines = [
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
        f"- Budget: {f'{budget:,} tokens' if budget else 'none, everything ranked is selected'}, allocation "
        f"`{run['select']['allocation']}`: the same top share of every domain. Tokens of documents longer than "
        "what was tokenized are extrapolated (`doc_tokens_exact` is false for them)",
        f"- Ranking `{ranking_key}`; versions: {', '.join(f'{k} {v}' for k, v in sorted(config['versions'].items()))}",
        "",
        "Scores of windows of different length, or of different models, must not be compared.",
        "",
        "## Domains",
        "",
        "| domain | documents | tokens | selected | tokens selected | lowest | median | highest | threshold |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(_domain_line(row) for row in domains),
        "",
        "## Licences of the selected documents, as their metadata names them",
        "",
        "| licence | documents | tokens |",
        "|---|---:|---:|",
        *(f"| {plain(row['licence'])} | {row['documents']:,} | {row['tokens']:,} |" for row in licences),
        "",
        "## Columns",
        "",
        "`doc_id`, `domain`, `rank` (1 is the best of its domain), `score`, `windows`, `doc_tokens`, `text`, and the",
        "provenance: `source` (URI), `line`, `offset`, `sha256` and `bytes` of the text, `meta` (the record's other",
        "fields as JSON). In jsonl.zst the same stands in the Pile's form, `text` and `meta`.",
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


def _domain_line(row: dict[str, Any]) -> str:
    threshold = "none selected" if row["threshold"] is None else f"{row['threshold']:.4g}"
    return (
        f"| {plain(row['domain'])} | {row['documents']:,} | {row['tokens']:,} | {row['selected_documents']:,} "
        f"| {row['selected_tokens']:,} | {row['lowest']:.4g} | {row['middle']:.4g} | {row['highest']:.4g} "
        f"| {threshold} |"
    )


def plain(text: str) -> str:
    """Text from the data as inert Markdown on one line, at most 120 characters."""
    one_line = "".join(character if character.isprintable() else " " for character in str(text))[:120]
    return re.sub(r"([\\`*_{}\[\]<>()#|!])", r"\\\1", one_line)


STAGE = Stage(name="card", version="1", compute=card)
