"""The Arrow schema of every shard in the store, one a stage. Field names are the same in SQL and in docs."""

from __future__ import annotations

import pyarrow as pa

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # URI of the source file
        pa.field("line", pa.int64(), nullable=False),  # 1-based line (jsonl) or row (Parquet, Arrow)
        pa.field("offset", pa.int64(), nullable=False),  # byte of the line in the decompressed file, or 0-based row
        pa.field("sha256", pa.string(), nullable=False),  # of the text's UTF-8 bytes
        pa.field("bytes", pa.int64(), nullable=False),  # length of the text's UTF-8 bytes
        pa.field("meta", pa.string()),  # the record's other fields as JSON
    ]
)
"""ingest/ and length/: one row a document."""

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
        pa.field("order_score", pa.float64()),  # null: not scored by a calibration that has one
        # the scorers beside ladm; null where one was not asked for
        *(pa.field(name, pa.float64()) for name in ("longattn", "prolong", "longfilter", "gzip", "random")),
    ]
)
"""score/: one row a window, no text."""

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

RANKING = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # the document's score, from its windows
        pa.field("windows", pa.int64(), nullable=False),
        pa.field("doc_tokens", pa.int64(), nullable=False),
        pa.field("doc_tokens_exact", pa.bool_(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),  # 1 is the best of its domain
        pa.field("domain_documents", pa.int64(), nullable=False),
        pa.field("top_share", pa.float64(), nullable=False),  # share of the domain's tokens at this rank or better
        pa.field("selected", pa.bool_(), nullable=False),
    ]
)
"""rank/: one row a document."""

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
    ]
)
"""rank/, beside the ranking: one row a domain or quota, what it should have got and what it got."""
