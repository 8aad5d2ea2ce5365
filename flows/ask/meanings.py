"""What the views of `ladm sql` show, and what each of their columns means.

The reference of the site and `.columns` in the shell are made of this table; a test holds it to the views themselves.
"""

from __future__ import annotations

from typing import NamedTuple


class View(NamedTuple):
    """One view."""

    shows: str
    """One row for what, in a sentence."""
    columns: dict[str, str]
    """Column → what it means."""


_DOC_ID = "id of the document: a hash of its file's name, its line and its text"
_DOMAIN = "domain of the document"
_SOURCE = "URI of the source file"
_LINE = "line (JSON lines) or row (Parquet, Arrow) of the source file, counted from 1"
_TOKENS = {
    "doc_tokens": "tokens of the whole document",
    "doc_tokens_exact": "false if `doc_tokens` was extrapolated from the part that was tokenized",
}

_SCORES = {
    "window_id": "id of the window: `<doc_id>:<window_index>`",
    "doc_id": _DOC_ID,
    "domain": _DOMAIN,
    "window_index": "number of the window in its document, counted from 0",
    "n_tokens": "tokens of the window",
    **_TOKENS,
    "cds": "LADM's contextual dependency score: mean of `cds_per_layer`",
    "cds_per_layer": "the score in each layer",
    "layers": "the layers of `cds_per_layer`, counted from 0",
    "dependency_score": "how much the parts of the window belong together, by a calibration; null without one",
    "order_score": "how much the window is in its own order, by a calibration; null without one",
    "coherence": "what the dependency score comes from, one number a feature; null without a calibration",
    "longattn": "score of the scorer `longattn`; null if it did not run, as for every column from here on",
    "prolong": "score of the scorer `prolong`",
    "longfilter": "score of the scorer `longfilter`: mean gain of its tokens, in nats",
    "gzip": "score of the scorer `gzip`: 1 in the middle of its band of compressibility, 0 at the edges",
    "random": "score of the scorer `random`",
    "gzip_ratio": "zlib's bytes ÷ bytes of the text",
    "zstd_ratio": "zstd's bytes ÷ bytes of the text; zstd looks back over the whole window",
    "zstd_halves": "zstd's bytes for both halves alone ÷ for the whole: high if the halves share text",
    "distinct_tokens": "distinct tokens ÷ tokens",
    "token_entropy": "entropy of the tokens ÷ the greatest possible",
    "tokens_once": "distinct tokens that come once ÷ distinct tokens",
    "clumping": "how close together tokens come again: minus the mean log of the way to the next ÷ an even share",
    "fixed_pairs": "log of how often pairs of neighbouring tokens come again ÷ as often by chance",
    "repeated_ngrams": "share of the runs of 6 tokens that also occur earlier in the window",
    "repeated_ngrams_far": "share of the runs of 6 tokens that also occur a quarter of the window earlier, or more",
    "repeated_lines": "share of the lines that repeat another one",
    "repeated_line_shapes": "share of the lines with the shape (letters, digits, spaces, marks) of another one",
    "shape_ratio": "zstd's bytes for the shape of the text ÷ bytes of the shape",
    "digit_share": "share of the text's bytes that are digits",
    "space_share": "share of the text's bytes that are spaces or tabs",
    "mark_share": "share of the text's bytes that are marks: no letters, digits, spaces, tabs or line breaks",
    "line_bytes": "mean bytes of a line",
    "line_spread": "standard deviation of the lines' bytes ÷ their mean",
    "attention_layers": "the layers of `far_mass` and `specificity`, counted from 0",
    "far_mass": "share of its attention that a query span puts on sampled earlier spans, for each layer",
    "specificity": "the part of `far_mass` that one key span gets, for each layer: high if text points somewhere",
    "profile_layers": "the layers of `attention_profile`, counted from 0",
    "attention_profile": "attention by distance, mean over heads, layer after layer",
    "gate_distance": "how unlike real text the window is: 0 as average real windows, 1 as their 90th percentile",
}

_RANKING = {
    "doc_id": _DOC_ID,
    "domain": _DOMAIN,
    "score": "score of the document, from those of its windows; null if it was replayed",
    "windows": "windows of the document that were scored",
    **_TOKENS,
    "rank": "1 is the best document of its domain",
    "domain_documents": "ranked documents of the domain",
    "top_share": "share of the domain's tokens at this rank or better; null if the document was replayed",
    "selected": "whether the document is in the selection",
    "copies": "how often it is in the selection; 0 if it is not selected",
    "role": "`long`; `replay` for a short document that `select.replay` drew",
}

VIEWS: dict[str, View] = {
    "documents": View(
        "One row for each document that was read.",
        {
            "doc_id": _DOC_ID,
            "domain": _DOMAIN,
            "text": "the text",
            "source": _SOURCE,
            "line": _LINE,
            "offset": "first byte of the line in the decompressed file, or the row counted from 0",
            "sha256": "SHA-256 of the text's UTF-8 bytes",
            "bytes": "length of the text in UTF-8 bytes",
            "meta": "the other fields of the record, as JSON",
        },
    ),
    "windows": View(
        "One row for each window that was cut.",
        {
            "window_id": "id of the window: `<doc_id>:<window_index>`",
            "doc_id": _DOC_ID,
            "domain": _DOMAIN,
            "window_index": "number of the window in its document, counted from 0",
            "input_ids": "the token ids",
            "n_tokens": "tokens of the window",
            "char_start": "the window's text is `text[char_start:char_end]`",
            "char_end": "the character after the window's last",
            **_TOKENS,
        },
    ),
    "scores": View("One row for each window that was scored.", _SCORES),
    "ranking": View("One row for each ranked document.", _RANKING),
    "selected": View(
        "One row for each copy of a selected document, short ones that were replayed included.",
        {**_RANKING, "copy": "which copy of the document, counted from 0"},
    ),
    "allocation": View(
        "One row for each domain or quota: its target, and what was selected.",
        {
            "domain": "the domain",
            "bucket_min": "a quota's least tokens of a document; null if open",
            "bucket_max": "a quota's tokens of a document are fewer than this; null if open",
            "target_tokens": "tokens that it should get; null if there is neither a budget nor a quota",
            "selected_tokens": "tokens that it got",
            "documents": "documents that were selected",
            "short_tokens": "`target_tokens` less `selected_tokens`, where positive",
            "exhausted": "true if everything that could be selected was selected",
            "role": "`long`, or `replay` for short documents",
        },
    ),
    "dropped": View(
        "One row for each document that was dropped by a filter, as a duplicate or for a benchmark passage, or held "
        "back from the ranking. What was too short for a window is counted in `stages`.",
        {
            "doc_id": _DOC_ID,
            "domain": _DOMAIN,
            "source": _SOURCE,
            "line": _LINE,
            "reason": "why: `exact duplicate`, `near duplicate`, `benchmark passage`, `<filter>: <reason>`, "
            "`select.where`, `unlike real text`",
            "similarity": "similarity to the twin; for a benchmark passage, the share of the passage found",
            "twin_id": "the document that is kept in its place; null for a benchmark passage",
            "twin_source": "source file of the twin or the passage",
            "twin_line": "line of the twin or the passage",
            "windows": "windows that are not scored, or not ranked, because of this",
            "distance": "`unlike real text`: distance of the document from real text, as in `gate_distance`",
        },
    ),
    "quarantine": View(
        "One row for each record or file that could not be used.",
        {
            "stage": "the stage that could not use it",
            "source": _SOURCE,
            "line": _LINE + "; null if it is about the whole file",
            "reason": "what is wrong with it",
            "excerpt": "how it begins",
            "records": "how many records the row stands for",
            "doc_id": "id of the document, if there was one",
        },
    ),
    "stages": View(
        "One row for each job of each stage.",
        {
            "stage": "the stage",
            "shard": "name of the shard it worked on",
            "source": "URI of the source file, if it was of one file",
            "cached": "true if the result was found in the store",
            "key": "hash of all that the result depends on",
            "records_in": "records it got",
            "kept": "records it passed on",
            "dropped": "records it dropped",
            "dropped_reasons": "JSON: reason → records",
            "quarantined": "records it could not use",
            "windows": "windows it worked on, for stages that count them",
            "tokens": "tokens it worked on, for stages that count them",
            "seconds": "how long the job took when it was done",
        },
    ),
    "runs": View(
        "One row for each run of the store.",
        {
            "run_id": "id of the run; ids sort by time",
            "status": "`completed`, `failed`, `cancelled` or `running`",
            "until": "the last stage that was asked for",
            "started": "when the run started",
            "finished": "when the run ended",
            "seconds": "how long the run took",
            "windows_scored": "windows that went through the model in this run",
            "model": "JSON: the model and the digests of its files",
            "config": "JSON: the configuration",
            "failures": "JSON: the jobs that failed, and why",
        },
    ),
}
"""View → what it shows."""
