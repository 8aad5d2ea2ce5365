"""Every hostile file is treated as the README of the shared folder says; one table holds what is expected.

The project carries the small ones (`tests/data/hostile`); where `../shared` lies beside it, all are read from there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ladm.tasks.reading.readers import UNKNOWN_DOMAIN, BadRecord, Record, SourceConfig, UnreadableFile, read_records

SHARED_FOLDER = Path(__file__).parents[2] / "../shared/hostile"
HOSTILE = SHARED_FOLDER if SHARED_FOLDER.is_dir() else Path(__file__).parents[1] / "data/hostile"
LARGE = {
    *("01_truncated.jsonl.zst", "02_truncated.jsonl.gz", "03_corrupt_middle.jsonl.zst", "04_bad_gzip_crc.jsonl.gz"),
    *("27_nested_meta.jsonl", "35_huge_line_20MB.jsonl.zst", "38_long_repeated_text.jsonl", "39_unicode_stress.jsonl"),
}
"""What only the shared folder has."""

# file: (records, bad records), or what the reason for refusing the whole file says
EXPECTED: dict[str, tuple[int, int] | str] = {
    "00_good.jsonl": (10, 0),
    "00_good.jsonl.zst": (10, 0),
    "00_good.jsonl.gz": (10, 0),
    "01_truncated.jsonl.zst": "truncated: the zstd stream",
    "02_truncated.jsonl.gz": "truncated: the gzip stream",
    "03_corrupt_middle.jsonl.zst": "damaged zstd stream",
    "04_bad_gzip_crc.jsonl.gz": "damaged gzip stream",
    "05_multiframe.jsonl.zst": (20, 0),
    "06_skippable_frame.jsonl.zst": (5, 0),
    "07_multimember.jsonl.gz": (10, 0),
    "08_trailing_garbage.jsonl.zst": "trailing bytes after the zstd stream",
    "09_wrong_extension.jsonl.zst": (5, 0),
    "10_wrong_extension.jsonl": (5, 0),
    "11_empty.jsonl": (0, 0),
    "12_empty.jsonl.zst": (0, 0),
    "13_zero_bytes.jsonl.zst": "empty: not a valid zstd file",
    "14_only_blank_lines.jsonl": (0, 0),
    "15_invalid_lines_mixed.jsonl": (10, 12),
    "16_non_utf8.jsonl": (3, 2),
    "17_utf16.jsonl": "UTF-16 text, not UTF-8: convert the file to UTF-8",
    "18_bom.jsonl": (3, 0),
    "19_crlf.jsonl": (5, 0),
    "20_no_final_newline.jsonl": (5, 0),
    "21_unicode_line_separators.jsonl": (4, 0),
    "22_missing_text.jsonl": (2, 3),
    "23_null_text.jsonl": (2, 1),
    "24_wrong_type_text.jsonl": (2, 5),
    "25_zero_length.jsonl": (6, 0),
    "26_meta_variants.jsonl": (13, 0),
    "27_nested_meta.jsonl": (3, 1),
    "28_surrogates.jsonl": (2, 3),
    "29_nul_and_controls.jsonl": (3, 0),
    "30_raw_nul_bytes.jsonl": (2, 1),
    "31_duplicate_ids.jsonl": (8, 0),
    "32_duplicate_keys.jsonl": (1, 0),
    "33_one_document_per_file_array.json": "a JSON array, not one object a line",
    "34_concatenated_no_newline.jsonl": (1, 1),
    "35_huge_line_20MB.jsonl.zst": (3, 0),
    "36_no_whitespace_2MB.jsonl.zst": (2, 0),
    "37_zip_bomb_200MB.jsonl.zst": (0, 1),  # longer than the default max_record_bytes
    "38_long_repeated_text.jsonl": (2, 0),
    "39_unicode_stress.jsonl": (6, 0),
    "40_special_tokens.jsonl": (3, 0),
    "50_good.parquet": (10, 0),
    "51_large_string_rowgroups.parquet": (10, 0),
    "52_dictionary_text.parquet": (9, 0),
    "53_wrong_schema.parquet": "picks one of the columns found: content: string, label: int64",
    "54_int_text.parquet": "column text is int64, not a string",
    "55_binary_text.parquet": "column text is binary, not a string",
    "56_null_text.parquet": (3, 1),
    "57_list_text.parquet": "column text is list<element: string>, not a string",
    "58_zero_rows.parquet": (0, 0),
    "59_nested_column.parquet": "picks one of the columns found: doc: struct<text: string>",
    "60_corrupt_footer.parquet": "truncated or damaged Parquet file",
    "61_truncated.parquet": "truncated or damaged Parquet file",
    "62_corrupt_page.parquet": "damaged Parquet file: row group 1 of 1",
    "63_not_parquet.parquet": "truncated or damaged Parquet file",
    "64_empty.parquet": "empty: not a valid Parquet file",
    "72 name with spaces & ünïcode [1].jsonl": (1, 0),
    "73_uppercase.JSONL": (1, 0),
    "74_text.bz2.jsonl.bz2": (1, 0),
    "75_text.jsonl.xz": (1, 0),
}


def read_file(name: str, **config: Any) -> list[Record | BadRecord]:
    with (HOSTILE / name).open("rb") as file:
        return list(read_records(file, name, SourceConfig(uri="x", **config)))


def expected_here() -> dict[str, tuple[int, int] | str]:
    """`EXPECTED` of the files that are there."""
    return EXPECTED if HOSTILE == SHARED_FOLDER else {name: EXPECTED[name] for name in EXPECTED if name not in LARGE}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_hostile_file(name: str) -> None:
    if name not in expected_here():
        pytest.skip("only ../shared/hostile has it, which is not here")
    expected = EXPECTED[name]
    if isinstance(expected, str):
        with pytest.raises(UnreadableFile) as refused:
            read_file(name)
        assert expected in refused.value.reason
        assert refused.value.reason.isprintable()
        return
    found = read_file(name)
    good = [record for record in found if isinstance(record, Record)]
    bad = [record for record in found if isinstance(record, BadRecord)]
    assert (len(good), len(bad)) == expected
    for record in good:
        record.text.encode()
        record.domain.encode()
        assert record.meta is None or json.loads(record.meta)
    for broken in bad:
        assert broken.reason.isprintable()
        assert broken.excerpt.isprintable()
        assert len(broken.excerpt) <= 200


def test_the_table_has_every_hostile_file() -> None:
    there = {
        path.name for path in HOSTILE.iterdir() if path.is_file() and path.name not in ("README.md", "EXPECTED.tsv")
    }
    assert there == set(expected_here())


def test_hostile_content_comes_out_as_it_is() -> None:
    assert all(record.line == number for number, record in enumerate(read_file("15_invalid_lines_mixed.jsonl"), 1))
    first = read_file("18_bom.jsonl")[0]
    assert isinstance(first, Record)
    assert (first.text[:8], first.offset) == ("Document", 3)
    texts = [record.text for record in read_file("21_unicode_line_separators.jsonl") if isinstance(record, Record)]
    assert texts[0] == "para one 0\u2028para two\u2029three\x85four\x0bfive\x0csix"
    domains = [record.domain for record in read_file("26_meta_variants.jsonl") if isinstance(record, Record)]
    source = [json.loads(line) for line in (HOSTILE / "26_meta_variants.jsonl").read_bytes().split(b"\n") if line]
    for record, domain in zip(source, domains, strict=True):
        meta = record.get("meta")
        wanted = meta.get("pile_set_name") if isinstance(meta, dict) else None
        assert domain == (str(wanted) if wanted not in (None, "") else UNKNOWN_DOMAIN)
    assert len(set(domains)) == 7
    assert [
        record.text for record in read_file("59_nested_column.parquet", text="doc.text") if isinstance(record, Record)
    ]
    assert len(read_file("53_wrong_schema.parquet", text="content")) == 2
