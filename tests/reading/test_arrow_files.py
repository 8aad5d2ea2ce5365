"""Parquet and Arrow: which columns are texts, rows in order, and damage told from storage errors and from bad rows."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladm.tasks.reading.readers import BadRecord, Record, SourceConfig, UnreadableFile, read_records

TABLE = pa.table(
    {
        "text": [f"document {number} " * 9 for number in range(150)],
        "meta": [{"pile_set_name": "Books", "n": number} for number in range(150)],
        "id": list(range(150)),
        "quality": [0.5] * 150,
    }
)


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def arrow(table: pa.Table, stream: bool, **options: Any) -> bytes:
    sink = io.BytesIO()
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=40)
    return sink.getvalue()


FORMS = {
    "parquet": parquet(TABLE, row_group_size=40),
    "parquet v2, checksums": parquet(TABLE, data_page_version="2.0", write_page_checksum=True, compression="zstd"),
    "arrow file": arrow(TABLE, stream=False),
    "arrow stream": arrow(TABLE, stream=True),
    "arrow file, zstd": arrow(TABLE, stream=False, compression="zstd"),
}
forms = pytest.mark.parametrize("form", list(FORMS))


def name_of(form: str) -> str:
    return f"a.{form.split(maxsplit=1)[0]}"


def read(content: bytes, name: str = "a.parquet", **config: Any) -> list[Record | BadRecord]:
    return list(read_records(io.BytesIO(content), name, SourceConfig(uri="x", **config)))


def refusal(content: bytes, name: str = "a.parquet", **config: Any) -> UnreadableFile:
    with pytest.raises(UnreadableFile) as refused:
        read(content, name, **config)
    return refused.value


@forms
def test_every_row_in_order_with_the_other_fields(form: str) -> None:
    records = read(FORMS[form], name_of(form))
    assert records == [
        Record(
            line=number + 1,
            offset=number,
            text=f"document {number} " * 9,
            domain="Books",
            meta=f'{{"meta":{{"pile_set_name":"Books","n":{number}}},"id":{number},"quality":0.5}}',
        )
        for number in range(150)
    ]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
@pytest.mark.parametrize("stream", [True, False])
def test_every_kind_of_string_is_a_text(kind: pa.DataType, stream: bool) -> None:
    table = pa.table({"text": pa.array(["a", "", "é"]).cast(kind)})
    assert [record.text for record in read(arrow(table, stream), "a.arrow") if isinstance(record, Record)] == [
        "a",
        "",
        "é",
    ]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1]), "int64"),
        (pa.array([b"x"]), "binary"),
        (pa.array([["x"]]), "list<"),
        (pa.array([{"a": "x"}]), "struct<"),
    ],
)
def test_another_type_of_text_refuses_the_file(column: Any, kind: str) -> None:
    for content, name in [
        (parquet(pa.table({"text": column, "b": column})), "a.parquet"),
        (arrow(pa.table({"text": column, "b": column}), stream=True), "a.arrow"),
    ]:
        reason = refusal(content, name).reason
        assert reason.startswith(f"column text is {kind}")
        assert "sources[].text picks one of the columns found: text: " in reason
        assert f"b: {kind}" in reason


def test_a_missing_text_column_names_the_columns_found_safely() -> None:
    reason = refusal(parquet(pa.table({"con\ntent\x1b[31m": ["x"], "label": [1]}))).reason
    assert reason == (
        r"no column text; sources[].text picks one of the columns found: con\ntent\x1b[31m: string, label: int64"
    )


def test_dotted_paths_walk_structs_and_a_column_of_that_name_wins() -> None:
    nested = pa.table({"doc": [{"text": "inner", "lang": "en"}], "id": ["x"]})
    assert read(parquet(nested), text="doc.text", domain="doc.lang") == [
        Record(1, 0, "inner", "en", '{"doc":{"lang":"en"},"id":"x"}')
    ]
    both = nested.append_column("doc.text", pa.array(["flat"])).append_column("meta.pile_set_name", pa.array(["Flat"]))
    for content, name in [(parquet(both), "a.parquet"), (arrow(both, stream=False), "a.arrow")]:
        (record,) = read(content, name, text="doc.text")
        assert isinstance(record, Record)
        assert (record.text, record.domain) == ("flat", "Flat")
    assert "no column doc.body" in refusal(parquet(nested), text="doc.body").reason


def test_a_null_text_and_a_null_parent_are_bad_records() -> None:
    found = read(parquet(pa.table({"text": ["a", None, ""]})), domain="nothing")
    assert [type(record) for record in found] == [Record, BadRecord, Record]
    assert (found[1].line, found[1].offset) == (2, 1)
    assert isinstance(found[1], BadRecord)
    assert found[1].reason == "field 'text' is null, not a string"
    (bad,) = read(parquet(pa.table({"doc": pa.array([None], pa.struct([("text", pa.string())]))})), text="doc.text")
    assert isinstance(bad, BadRecord)


def test_only_the_row_that_is_not_utf8_is_lost() -> None:
    raw = pa.array([b"good", b"\xff\xfe", b"also good"])
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    found = read(parquet(pa.table({"text": text, "id": [1, 2, 3]})))
    assert [record.text if isinstance(record, Record) else record.reason[:9] for record in found] == [
        "good",
        "not UTF-8",
        "also good",
    ]
    assert found[1].line == 2
    other = read(arrow(pa.table({"text": ["x"] * 3, "note": text}), stream=True), "a.arrow")
    notes = [record.meta for record in other if isinstance(record, Record)]
    assert notes == ['{"note":"good"}', r'{"note":"\\xff\\xfe"}', '{"note":"also good"}']
    # Arrow's own reader trusts its input, so there the whole batch is checked, and refused.
    assert "record batch 1" in refusal(arrow(pa.table({"text": text}), stream=True), "a.arrow").reason


def test_a_text_too_long_is_a_bad_record() -> None:
    found = read(parquet(pa.table({"text": ["é" * 10, "e" * 19, "é" * 9]})), max_record_bytes=19)
    assert [type(record) for record in found] == [BadRecord, Record, Record]


def test_values_without_a_json_form_are_kept_as_strings() -> None:
    import datetime
    import decimal

    day = datetime.date(2024, 5, 1)
    table = pa.table(
        {
            "text": ["x"],
            "meta": [{"d": decimal.Decimal("1.50"), "b": b"\xff", "n": float("nan")}],
            "id": [day],
            "day": [day],
        }
    )
    (record,) = read(parquet(table), domain="day")
    assert record == Record(
        1, 0, "x", "2024-05-01", '{"meta":{"d":"1.50","b":"/w==","n":"NaN"},"id":"2024-05-01","day":"2024-05-01"}'
    )


def test_all_columns_are_kept_as_json_lines_keep_all_fields() -> None:
    import json

    web = {
        "text": "x",
        "id": "<urn:1>",
        "url": "https://example.org/",
        "score": 0.5,
        "license": "CC0",
        "tags": ["a", None],
    }
    (line,) = read_records(io.BytesIO(json.dumps(web).encode()), "a.jsonl", SourceConfig(uri="x"))
    assert isinstance(line, Record)
    table = pa.table({name: [value] for name, value in web.items()})
    for content, name in [
        (parquet(table), "a.parquet"),
        (arrow(table, stream=True), "a.arrow"),
        (arrow(table, stream=False), "a.arrow"),
    ]:
        (record,) = read(content, name)
        assert isinstance(record, Record)
        assert record.meta == line.meta


def meta_of(**columns: Any) -> Any:
    """The metadata of the one row that these columns make, the same from Parquet and from Arrow."""
    import json

    found = [
        json.loads(str(one.meta))
        for content, name in [
            (parquet(pa.table({"text": ["x"], **columns})), "a.parquet"),
            (arrow(pa.table({"text": ["x"], **columns}), stream=True), "a.arrow"),
        ]
        for one in read(content, name)
        if isinstance(one, Record)
    ]
    assert found[0] == found[1]
    return found[0]


def test_nested_columns_are_kept() -> None:
    pairs, repeated, numbered = [[("a", 1), ("b", 2)]], [[("a", 1), ("a", 2)]], [[(7, b"\xff")]]
    assert meta_of(
        struct=pa.array([{"a": {"b": [1, 2]}, "c": b"ab"}]),
        map=pa.array(pairs, pa.map_(pa.string(), pa.int64())),
        repeated=pa.array(repeated, pa.map_(pa.string(), pa.int64())),
        numbered=pa.array(numbered, pa.map_(pa.int32(), pa.binary())),
        most=pa.array([2**64 - 1], pa.uint64()),
        endless=pa.array([[float("inf"), float("-inf"), 1.5, float("nan"), None]]),
    ) == {
        "struct": {"a": {"b": [1, 2]}, "c": "YWI="},
        "map": {"a": 1, "b": 2},
        "repeated": [["a", 1], ["a", 2]],
        "numbered": {"7": "/w=="},
        "most": 2**64 - 1,
        "endless": ["Infinity", "-Infinity", 1.5, "NaN", None],
    }


@pytest.mark.parametrize("zone", ["Nowhere/Invalid", "tzutc()", "Etc/\x1b"])
def test_a_time_zone_that_is_not_known_here_fails_nothing(zone: str) -> None:
    when = pa.array([0], pa.timestamp("us", zone))
    deep = pa.StructArray.from_arrays([when, pa.array(["Books"])], ["when", "pile_set_name"])
    told = f"1970-01-01T00:00:00.000000Z[{zone}]"
    assert meta_of(when=when, meta=deep, several=pa.ListArray.from_arrays([0, 1], when)) == {
        "when": told,
        "meta": {"when": told, "pile_set_name": "Books"},
        "several": [told],
    }
    assert [record.domain for record in read(parquet(pa.table({"text": ["x"], "meta": deep}))) if record] == ["Books"]


def test_nanoseconds_are_kept() -> None:
    """Of times of day, moments and durations, however deep they stand; what needs none is written as before."""
    number = pa.array([3_600_000_001_500], pa.int64())
    when = number.cast(pa.time64("ns"))
    even = pa.array([1_000_001_000, None], pa.int64()).cast(pa.time64("ns"))
    assert meta_of(
        when=when,
        even=even[:1],
        none=even[1:],
        named=pa.StructArray.from_arrays([when, pa.array([1.5])], ["when", "size"]),
        empty=pa.array([None], pa.struct([("when", pa.time64("ns"))])),
        several=pa.ListArray.from_arrays([0, 2], even),
        mapped=pa.MapArray.from_arrays([0, 1], ["a"], when),
        moment=number.cast(pa.timestamp("ns", "UTC")),
        lasting=number.cast(pa.duration("ns")),
        coarse=pa.array([1500], pa.int64()).cast(pa.time64("us")),
    ) == {
        "when": "01:00:00.000001500",
        "even": "00:00:01.000001",
        "none": None,
        "named": {"when": "01:00:00.000001500", "size": 1.5},
        "empty": None,
        "several": ["00:00:01.000001", None],
        "mapped": {"a": "01:00:00.000001500"},
        "moment": "1970-01-01T01:00:00.000001500+00:00",
        "lasting": "0 days 01:00:00.000001500",
        "coarse": "00:00:00.001500",
    }


def test_dates_beyond_the_years_of_python_are_kept() -> None:
    found = meta_of(
        far=pa.array([10**15], pa.timestamp("ms")),
        day=pa.array([2**30], pa.date32()),
        span=pa.array([2**62], pa.duration("s")),
        exact=pa.array([1_001], pa.timestamp("ns")),
        east=pa.array([0], pa.timestamp("s", "+05:30")),
    )
    assert found["far"] == 10**15
    assert found["day"] == 2**30
    assert str(found["span"]) == str(2**62)
    assert found["exact"] == "1970-01-01T00:00:00.000001001"
    assert found["east"] == "1970-01-01T05:30:00+05:30"


def test_columns_of_one_name_are_all_kept() -> None:
    twice = pa.Table.from_arrays([pa.array(["x"]), pa.array([1]), pa.array([2])], ["text", "a", "a"])
    for content, name in [(parquet(twice), "a.parquet"), (arrow(twice, stream=True), "a.arrow")]:
        assert [record.meta for record in read(content, name) if isinstance(record, Record)] == ['{"a":1,"a_2":2}']
    text = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], ["text", "text"])
    assert "two columns are named text" in refusal(parquet(text)).reason


@forms
def test_a_file_cut_anywhere_is_refused(form: str) -> None:
    content = FORMS[form]
    for length in [0, 1, 7, 8, 9, *range(10, len(content), len(content) // 60), len(content) - 1]:
        with pytest.raises(UnreadableFile):
            read(content[:length], name_of(form))


def test_damage_names_the_row_group_or_the_batch() -> None:
    damaged = bytearray(parquet(TABLE, row_group_size=50, write_page_checksum=True, compression="none"))
    damaged[damaged.index(b"document 70 ")] ^= 1
    error = refusal(bytes(damaged))
    assert "row group 2 of 3" in error.reason
    assert error.line == 51
    damaged = bytearray(FORMS["arrow file, zstd"])
    middle = damaged.index(b"\x28\xb5\x2f\xfd", len(damaged) // 2)
    damaged[middle : middle + 4] = b"\0\0\0\0"
    assert "damaged Arrow file: record batch" in refusal(bytes(damaged), "a.arrow").reason


def test_an_arrow_stream_cut_between_two_batches_is_refused() -> None:
    content = FORMS["arrow stream"]
    assert "end-of-stream mark" in refusal(content[:-8], "a.arrow").reason
    assert "end-of-stream mark" in refusal(content + b"\0" * 8, "a.arrow").reason


def test_a_compressed_or_foreign_file_is_refused() -> None:
    import gzip

    assert "Parquet inside gzip" in refusal(gzip.compress(FORMS["parquet"]), "a.parquet.gz").reason
    assert "not a Parquet file" in refusal(b'{"text": "x"}\n').reason
    assert "empty: not a valid Arrow file" in refusal(b"", "a.arrow").reason


class FailingFile(io.BytesIO):
    """Storage whose read number `good + 1` fails."""

    error = ConnectionResetError(104, "the storage went away")

    def __init__(self, content: bytes, good: int) -> None:
        super().__init__(content)
        self.good = good

    def read(self, size: int | None = -1) -> bytes:
        self.good -= 1
        if self.good < 0:
            raise self.error
        return super().read(size)


@forms
def test_an_error_of_the_storage_passes_through_from_every_read(form: str) -> None:
    for good in range(500):
        raised = None
        try:
            found = list(read_records(FailingFile(FORMS[form], good), name_of(form), SourceConfig(uri="x")))
        except ConnectionResetError as error:
            raised = error
        else:
            assert len(found) == 150
            break
        assert raised is FailingFile.error
        assert raised.__cause__ is None
    assert 3 < good < 499


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_refused_and_never_anything_else(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(list(FORMS)))
    content = bytearray(FORMS[form])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(content), name_of(form))
    except UnreadableFile as error:
        reason, found = error.reason, []
    else:
        reason = "none"
    assert reason
    assert reason.isprintable()
    assert [record.line for record in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("stream", [True, False])
def test_a_damaged_name_deep_in_the_schema_is_damage(stream: bool) -> None:
    kind = pa.list_(pa.struct([("theNameOfAField", pa.timestamp("us", "No/Zone"))]))
    table = pa.table({"text": ["a text"], "more": pa.array([[{"theNameOfAField": 1}]], kind)})
    content = arrow(table, stream).replace(b"theNameOfAField", b"the\xffameOfAField")
    with pytest.raises(UnreadableFile, match="damaged Arrow schema"):
        list(read_records(io.BytesIO(content), "x.arrow", SourceConfig(uri="x.arrow")))


def test_columns_nested_too_deeply_are_no_damage() -> None:
    deep = pa.array([1])
    for _ in range(110):
        deep = pa.StructArray.from_arrays([deep], ["n"])
    with pytest.raises(UnreadableFile, match=r"^whole, but with columns nested too deeply for Arrow to read; write"):
        read(parquet(pa.table({"text": ["x"], "deep": deep})))
