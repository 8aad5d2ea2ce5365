"""What is kept at ingest can be exported, however deep it is nested."""

from __future__ import annotations

import io
import json

import orjson
import pytest

from ladm.tasks.exporters.jsonl import pile_record
from ladm.tasks.reading.readers import BadRecord, Record, SourceConfig, read_records


@pytest.mark.parametrize("levels", [1, 200, 250, 252, 253, 254, 255, 300, 900])
def test_a_deep_record_is_exported_or_quarantined_at_ingest(levels: int) -> None:
    deep = "[" * (levels - 1) + "]" * (levels - 1)
    line = f'{{"text": "x", "n": 1.50, "deep": {deep or 1}}}'
    (record,) = read_records(io.BytesIO(line.encode()), "a.jsonl", SourceConfig(uri="x"))
    if isinstance(record, BadRecord):
        assert levels > 254
        assert record.reason.startswith("fields that cannot be kept as JSON")
        return
    assert isinstance(record, Record)
    row = {"text": record.text, "domain": record.domain, "meta": record.meta, "source": "a.jsonl"}
    exported = orjson.dumps(pile_record(row))
    kept = json.loads(line)
    del kept["text"]
    whole = {"text": "x", "meta": {"pile_set_name": "unknown", "source": "a.jsonl", "original": kept}}
    assert json.loads(exported) == whole
    if levels < 250:
        assert exported == orjson.dumps(whole)
    assert b'"original":null' in orjson.dumps(pile_record({**row, "meta": None}))
