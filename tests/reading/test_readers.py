"""Readers: exact lines, offsets, reasons and domains, and no line is lost without a word."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladm.tasks.printable import printable
from ladm.tasks.reading.readers import (
    UNKNOWN_DOMAIN,
    BadRecord,
    ConstDomain,
    Record,
    SourceConfig,
    UnreadableFile,
    detect_format,
    read_records,
)
from ladm.tasks.settings import Settings


def read(content: bytes, name: str = "a.jsonl", **config: Any) -> list[Record | BadRecord]:
    return list(read_records(io.BytesIO(content), name, SourceConfig(uri="x", **config)))


def one(content: bytes, name: str = "a.jsonl", **config: Any) -> Record:
    (record,) = read(content, name, **config)
    assert isinstance(record, Record)
    return record


def reason(content: bytes, **config: Any) -> str:
    (record,) = read(content, **config)
    assert isinstance(record, BadRecord)
    return record.reason


def test_lines_and_offsets_are_exact() -> None:
    lines = ['{"text":"é"}', "", '{"text":"b"}\r', "  \r", "oops", '{"text":"c"}']
    content = "\n".join(lines).encode()
    found = read(content)
    assert [(record.line, type(record)) for record in found] == [(1, Record), (3, Record), (5, BadRecord), (6, Record)]
    for record in found:
        assert content[record.offset :].startswith(lines[record.line - 1].encode())
    assert [record.offset for record in read(b"\xef\xbb\xbf" + content)] == [record.offset + 3 for record in found]


def test_a_record_keeps_its_other_fields_as_json() -> None:
    record = one('{"id": 5, "text": "t", "meta": {"pile_set_name": "Books", "x": [1.5, null, "é"]}}'.encode())
    assert record == Record(1, 0, "t", "Books", '{"id":5,"meta":{"pile_set_name":"Books","x":[1.5,null,"é"]}}')
    assert one(b'{"text": "t"}').meta is None
    assert one(b'{"a": {"text": "t", "b": 1}}', text="a.text").meta == '{"a":{"b":1}}'
    assert one(b'{"text": "first", "text": "last"}').text == "last"
    assert one(b'{"text": "\\u0000 \\ud83d\\ude00"}').text == "\0 😀"


@pytest.mark.parametrize("name", ["a.py", "README.md", "a.rst", "a.html", "Makefile", "a.tex.gz", "a.jsonl"])
def test_any_file_is_a_text_where_the_entry_says_so(name: str) -> None:
    assert one(b"# a\n<b>text</b>\n", name, format="text").text == "# a\n<b>text</b>\n"
    assert SourceConfig(uri="x", format="text") == SourceConfig(uri="x", format="txt")
    with pytest.raises(UnreadableFile, match=r"text for \.md, \.py"):
        detect_format("a.py", SourceConfig(uri="x"))


def test_whole_numbers_beyond_64_bits_are_kept_as_text() -> None:
    kept = '{"most":18446744073709551615,"least":-9223372036854775808,"float":1e+25,"text":"1e25"}'
    content = '{"t": "x", "most": 18446744073709551615, "least": -9223372036854775808, "float": 1e25, "text": "1e25"}'
    assert str(one(content.encode(), text="t").meta).replace("1e25,", "1e+25,") == kept
    content = '{"text": "x", "id": 18446744073709551616, "meta": {"n": [-9223372036854775809, 1.5]}}'
    assert one(content.encode()).meta == '{"id":"18446744073709551616","meta":{"n":["-9223372036854775809",1.5]}}'
    assert one(b'{"text": "x", "shelf": 123456789012345678901}', domain="shelf").domain == "123456789012345678901"


@pytest.mark.parametrize("text", ["", "   ", "\u200b", "\n"])
def test_an_empty_or_blank_text_is_a_record(text: str) -> None:
    assert one(json.dumps({"text": text}).encode()).text == text


@pytest.mark.parametrize(
    ("fields", "domain"),
    [
        ({}, UNKNOWN_DOMAIN),
        ({"meta": None}, UNKNOWN_DOMAIN),
        ({"meta": "Books"}, UNKNOWN_DOMAIN),
        ({"meta": ["Books"]}, UNKNOWN_DOMAIN),
        ({"meta": {"pile_set_name": None}}, UNKNOWN_DOMAIN),
        ({"meta": {"pile_set_name": ""}}, UNKNOWN_DOMAIN),
        ({"meta": {"pile_set_name": ["Books"]}}, UNKNOWN_DOMAIN),
        ({"meta": {"pile_set_name": {"a": "Books"}}}, UNKNOWN_DOMAIN),
        ({"meta": {"pile_set_name": 7}}, "7"),
        ({"meta": {"pile_set_name": 0}}, "0"),
        ({"meta": {"pile_set_name": 1.5}}, "1.5"),
        ({"meta": {"pile_set_name": False}}, "false"),
        ({"meta": {"pile_set_name": "../a\n/\u202e"}}, "../a\n/\u202e"),
        ({"meta.pile_set_name": "Flat", "meta": {"pile_set_name": "Deep"}}, "Flat"),
    ],
)
def test_domain(fields: dict[str, Any], domain: str) -> None:
    content = json.dumps({"text": "t", **fields}).encode()
    assert one(content).domain == domain
    assert one(content, domain={"const": "all"}).domain == "all"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"nonsense", "not JSON: invalid literal"),
        (b'{"text": "a"} {"text": "b"}', "not JSON: unexpected content after document at character 15"),
        (b'{"text": "x", "score": NaN}', "not JSON: NaN at character 24 of the line is no JSON; write null"),
        (b'{"text": "x", "score": [-Infinity]}', "not JSON: Infinity at character 26 of the line is no JSON"),
        (b'{"text": "\\ud800"}', "not JSON: no low surrogate"),
        (b'{"text": "a\tb"}', "not JSON: "),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8: byte 0xed at byte 10 of the line"),
        (b'{"text": "\xff"}', "not UTF-8: byte 0xff at byte 10 of the line"),
        (b'{"text": "x", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON: depth limit exceeded"),
        (b'{"text": "x", "deep": ' + b"[" * 500 + b"]" * 500 + b"}", "fields that cannot be kept as JSON"),
        (b"[1, 2]", "not a JSON object but an array"),
        (b'"text"', "not a JSON object but a string"),
        (b"null", "not a JSON object but null"),
        (b"true", "not a JSON object but a boolean"),
        (b"4.5", "not a JSON object but a number"),
        (b'{"TEXT": "x"}', "no field 'text'"),
        (b'{"text": null}', "field 'text' is null, not a string"),
        (b'{"text": true}', "field 'text' is a boolean, not a string"),
        (b'{"text": 5}', "field 'text' is a number, not a string"),
        (b'{"text": ["x"]}', "field 'text' is an array, not a string"),
        (b'{"text": {"x": 1}}', "field 'text' is an object, not a string"),
        (b'{"text": "' + b"x" * 300_000 + b'"}', "longer than max_record_bytes (250,000)"),
    ],
    ids=lambda value: printable(value, 30),
)
def test_why_a_line_is_refused(line: bytes, wanted: str) -> None:
    assert reason(line + b"\n", max_record_bytes=250_000).startswith(wanted)


def test_a_line_too_long_does_not_hide_its_neighbours() -> None:
    long = b'{"text": "' + b"x" * 3_000_000 + b'"}'
    found = read(b'{"text": "a"}\n' + long + b'\n{"text": "b"}\n', max_record_bytes=len(long) - 1)
    assert [(type(record), record.line, record.offset) for record in found] == [
        (Record, 1, 0),
        (BadRecord, 2, 14),
        (Record, 3, 15 + len(long)),
    ]
    assert len(read(long, max_record_bytes=len(long))) == 1
    assert one(long, max_record_bytes=len(long)).text == "x" * 3_000_000


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b'[\n{"text": "a"},\n{"text": "b"}\n]\n', "a JSON array"),
        (b'\n [{"text": "a"},\n{"text": "b"}]', "a JSON array"),
        (b'[{"text": "a"}, {"text": "b"}]', "a JSON array"),
        (b'{\n "text": "a"\n}\n', "JSON spread over several lines"),
        ('{"text": "é"}'.encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + '{"text": "é"}'.encode("utf-16-be"), "UTF-16"),
        ('{"text": "é"}'.encode("utf-32"), "UTF-32"),
        (b"PAR1\x15\x04", "not text but Parquet"),
        (b"ARROW1\0\0", "not text but Arrow"),
        (b"PK\x03\x04", "not text but a zip archive"),
        (b"\x04\x22\x4d\x18", "not text but lz4"),
    ],
)
def test_what_is_not_json_lines_refuses_the_file(content: bytes, wanted: str) -> None:
    with pytest.raises(UnreadableFile, match=wanted):
        read(content)


def test_a_text_file_is_one_record() -> None:
    import gzip

    assert one("one\r\ntwo é\n".encode(), "a.txt", domain={"const": "books"}) == Record(
        1, 0, "one\r\ntwo é\n", "books", None
    )
    assert one(gzip.compress(b"\xef\xbb\xbfx"), "a.txt.gz").text == "x"
    assert one(b"", "a.txt") == Record(1, 0, "", UNKNOWN_DOMAIN, None)
    (bad,) = read(b"caf\xe9", "a.txt")
    assert bad == BadRecord(1, 0, "not UTF-8: byte 0xe9 at byte 3", r"caf\xe9")
    (bad,) = read(b"x" * 100, "a.txt", max_record_bytes=99)
    assert isinstance(bad, BadRecord)
    assert bad.reason.startswith("longer than max_record_bytes (99)")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("s3://b/p/a.jsonl.zst", "jsonl"),
        ("A.JSONL.GZ", "jsonl"),
        ("a.ndjson.bz2", "jsonl"),
        ("a.json", "jsonl"),
        ("72 name & [1].jsonl.xz", "jsonl"),
        ("dir.txt/a.Parquet", "parquet"),
        ("a.feather", "arrow"),
        ("a.jsonl.txt", "txt"),
    ],
)
def test_format_by_name(name: str, found: str) -> None:
    assert detect_format(name, SourceConfig(uri="x")) == found
    assert detect_format(name, SourceConfig(uri="x", format="arrow")) == "arrow"


@pytest.mark.parametrize("name", ["a.csv", "part-00000", "dir.jsonl/part", "a.gz", ".zst", "a.jsonl.gz.zst"])
def test_an_unknown_extension_names_the_formats(name: str) -> None:
    with pytest.raises(UnreadableFile, match=r"read are \.jsonl, .*\.parquet.*sources\[\]\.format"):
        detect_format(name, SourceConfig(uri="x"))


def test_the_configuration_reads_both_kinds_of_domain_and_refuses_unknown_keys() -> None:
    assert SourceConfig.model_validate({"uri": "x", "domain": {"const": "books"}}).domain == ConstDomain(const="books")
    assert issubclass(SourceConfig, Settings)
    with pytest.raises(ValueError, match="txet"):
        SourceConfig.model_validate({"uri": "x", "txet": "body"})


def test_printable() -> None:
    assert printable("a\x1b[31m\n\u2028é\u202e") == r"a\x1b[31m\n\u2028é\u202e"
    assert printable(b"\xffab") == r"\xffab"
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 199 + "…"
    assert printable("é".encode() * 201) == "é" * 199 + "…"
    assert printable("\0" * 99, limit=10) == r"\x00\x00" + "…"


GOOD = b'{"text": "a text", "meta": {"pile_set_name": "Books"}}'
LINES = st.one_of(
    st.just(GOOD),
    st.binary(max_size=30),
    st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=3)).map(
        lambda t: GOOD[: t[0]] + t[1] + GOOD[t[0] + 1 :]
    ),
    st.sampled_from([b"", b" ", b"\r", b"\t\r", b"{", b"[", b"{}", b"\0" * 9, b"\xef\xbb\xbf", GOOD + GOOD]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(LINES, max_size=12), st.booleans())
def test_records_and_bad_records_are_the_lines_that_are_not_blank(lines: list[bytes], ended: bool) -> None:
    content = b"\n".join([GOOD, *lines]) + b"\n" * ended
    found = read(content)
    stored = content.split(b"\n")
    assert [record.line for record in found] == [number for number, line in enumerate(stored, 1) if line.strip()]
    for record in found:
        line = stored[record.line - 1]
        assert content[record.offset : record.offset + len(line)] == line
        assert isinstance(record, Record) or record.excerpt.isprintable()
        assert isinstance(record, BadRecord) or json.loads(line)["text"] == record.text


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(
        [
            b"",
            b"\x28\xb5\x2f\xfd",
            b"\x1f\x8b\x08\x00",
            b"BZh91AY&SY",
            b"\xfd7zXZ\x00",
            b"PAR1",
            b"\xff\xff\xff\xff",
            b"[",
        ]
    ),
    st.binary(max_size=200),
    st.sampled_from(["a.jsonl", "a.jsonl.zst", "a.txt.gz", "a.parquet", "a.arrow", "a.json.bz2", "a.txt.xz"]),
)
def test_arbitrary_bytes_are_refused_and_never_anything_else(start: bytes, content: bytes, name: str) -> None:
    try:
        found = read(start + content, name)
    except UnreadableFile as error:
        why, found = error.reason, []
    else:
        why = "none"
    assert why.isprintable()
    assert len(found) <= (start + content).count(b"\n") + 1
