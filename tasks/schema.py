"""The Arrow schema of every shard in the store, one a stage. Field names are the same in SQL and in docs."""

from __future__ import annotations

import pyarrow as pa

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # the name of the source file (reading/names.py)
        pa.field("line", pa.int64(), nullable=False),  # 1-based line (jsonl) or row (Parquet, Arrow)
        pa.field("offset", pa.int64(), nullable=False),  # byte of the line in the decompressed file, or 0-based row
        pa.field("sha256", pa.string(), nullable=False),  # of the text's UTF-8 bytes
        pa.field("bytes", pa.int64(), nullable=False),  # length of the text's UTF-8 bytes
        pa.field("meta", pa.string()),  # the record's other fields as JSON
    ]
)
"""ingest/, length/ and filter/: one row a document."""

WINDOWS = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),  # "<doc_id>:<window_index>"
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("window_index", pa.int32(), nullable=False),  # 0-based, in the order of the text
        pa.field("input_ids", pa.large_list(pa.int32()), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("char_start", pa.int64(), nullable=False),  # the window's text is text[char_start:char_end]
        pa.field("char_end", pa.int64(), nullable=False),
        pa.field("doc_tokens", pa.int64(), nullable=False),  # tokens of the whole document
        pa.field("doc_tokens_exact", pa.bool_(), nullable=False),  # False: extrapolated from the part tokenized
    ]
)
"""tokenize/: one row a window."""

SCORES = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("window_index", pa.int32(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("doc_tokens", pa.int64(), nullable=False),
        pa.field("doc_tokens_exact", pa.bool_(), nullable=False),
        pa.field("cds", pa.float64(), nullable=False),
        pa.field("cds_per_layer", pa.list_(pa.float64()), nullable=False),
        pa.field("layers", pa.list_(pa.int32()), nullable=False),  # 0-based, aligned with cds_per_layer
        # by a calibration; null: it has none, or there is no calibration
        *(pa.field(name, pa.float64()) for name in ("dependency_score", "order_score")),
        pa.field("coherence", pa.list_(pa.float32())),  # what dependency comes from (scorers/coherence.py), or null
    ]
)
"""score/: one row a window, no text."""

MEASURED = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
    ]
)
"""measure/: one row a window, and behind these the columns of one scorer beside `ladm` (`scorers/registry.py`)."""

GATED = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        # how unlike real text the window is; 0: as real windows in the middle, 1: as their 90th percentile
        pa.field("gate_distance", pa.float64(), nullable=False),
    ]
)
"""gate/: one row a window."""

BENCHMARKS = pa.schema(
    [
        pa.field("gram", pa.uint64(), nullable=False),  # a run of words as a number (shingles.py)
        pa.field("words", pa.int32(), nullable=False),  # how many words the run has
        pa.field("source", pa.string(), nullable=False),  # the benchmark file
        pa.field("line", pa.int64(), nullable=False),  # of the first passage there that has the run
    ]
)
"""benchmarks/: one row a distinct run of words of the benchmark passages."""

SIGNATURES = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("content", pa.string(), nullable=False),  # sha256 of the text's normal form
        pa.field("minhash", pa.list_(pa.uint32())),  # null: not asked for, or too few words
        pa.field("passage_source", pa.string()),  # the benchmark passage that it holds, if any
        pa.field("passage_line", pa.int64()),
        pa.field("passage_share", pa.float64()),  # share of the passage's n-grams that it holds
    ]
)
"""signatures/: one row a long enough document, what duplicates and benchmark passages are told by."""

DROPPED = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # exact duplicate | near duplicate | benchmark passage
        pa.field("similarity", pa.float64(), nullable=False),  # to the twin; of a passage, the share that is in it
        pa.field("twin_id", pa.string()),  # the document that is kept in its place; null: a benchmark passage
        pa.field("twin_source", pa.string(), nullable=False),
        pa.field("twin_line", pa.int64(), nullable=False),
        pa.field("windows", pa.int64(), nullable=False),  # that are not scored therefore
    ]
)
"""dedup/: one row a document that is not scored, and why."""

FILTERED = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # "<filter>: <reason>", or the filter's name alone
    ]
)
"""filter/ and short/, beside the documents: one row a document that a filter dropped."""

DROP_LIST = pa.schema([pa.field("doc_id", pa.string(), nullable=False)])
"""dedup/, one file a shard of windows: the documents whose windows are not scored."""

QUARANTINE = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("line", pa.int64()),  # null: the entry is about the whole file
        pa.field("reason", pa.string(), nullable=False),
        pa.field("excerpt", pa.string(), nullable=False),
        pa.field("records", pa.int64(), nullable=False),  # how many records the entry stands for
        pa.field("doc_id", pa.string()),
    ]
)
"""quarantine/: what could not be used, with file, line and reason."""

SHORT = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("doc_tokens", pa.int64(), nullable=False),
    ]
)
"""short/: one row a document that fills no window, no text."""

RANKING = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("score", pa.float64()),  # the document's score, from its windows; null: replayed
        pa.field("windows", pa.int64(), nullable=False),
        pa.field("doc_tokens", pa.int64(), nullable=False),
        pa.field("doc_tokens_exact", pa.bool_(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),  # 1 is the best of its domain; the replayed ones come after all
        pa.field("domain_documents", pa.int64(), nullable=False),
        pa.field("top_share", pa.float64()),  # share of the domain's tokens at this rank or better
        pa.field("selected", pa.bool_(), nullable=False),
        pa.field("copies", pa.int64(), nullable=False),  # how often it is in the selection; 0: not selected
        pa.field("role", pa.string(), nullable=False),  # long; replay: a short document, not ranked, but selected
    ]
)
"""rank/: one row a ranked document, and one a replayed one."""

NOT_RANKED = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("score", pa.float64()),  # by which it would have been ranked
        pa.field("windows", pa.int64(), nullable=False),
        pa.field("doc_tokens", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # select.where
        pa.field("distance", pa.float64()),  # from what would have let it pass; null: there is no such thing
    ]
)
"""rank/, beside the ranking: one row a document that was scored and is held back from the ranking, and why."""

ALLOCATION = pa.schema(
    [
        pa.field("domain", pa.string(), nullable=False),
        pa.field("bucket_min", pa.int64()),  # documents of bucket_min <= doc_tokens < bucket_max; null: open
        pa.field("bucket_max", pa.int64()),
        pa.field("target_tokens", pa.int64()),  # null: none, neither a budget nor a quota
        pa.field("selected_tokens", pa.int64(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),  # selected ones
        pa.field("short_tokens", pa.int64(), nullable=False),  # target_tokens - selected_tokens, where positive
        pa.field("exhausted", pa.bool_(), nullable=False),  # everything that could be taken was taken
        pa.field("role", pa.string(), nullable=False),  # long | replay
    ]
)
"""rank/, beside the ranking: one row a domain or quota, what it should have got and what it got."""
