"""The folder of an export as the Hugging Face Hub and its loader see it: its card's head, and what can be loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import Answer, Corpus, run_arguments

from ladm.tasks.exporters.hub_header import hub_header, hub_licence
from ladm.tasks.exporters.shown_paths import below, without_local_paths

Cli = Callable[..., Answer]
FORMATS = ("parquet", "jsonl.zst", "datasets", "mds", "megatron", "npy")


def entries(*formats: str, **more: Any) -> list[dict[str, Any]]:
    return [{"format": one, "validation": 0.0, **more} for one in formats]


def header(*formats: str, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"card": {}, "licences": [], "languages": [], "rows": 7, "splits": [0.1, 0.9], **more}
    lines = hub_header(given.pop("exports", entries(*formats)), **given)
    assert (lines[0], lines[-2], lines[-1]) == ("---", "---", "")
    found: dict[str, Any] = yaml.safe_load("\n".join(lines[1:-2]))
    return found


def stated(*licences: str) -> list[dict[str, Any]]:
    return [{"licence": one} for one in licences]


# -- the head ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("licences", "given", "told"),
    [
        (("CC0", "CC0-1.0"), None, "cc0-1.0"),
        (("MIT License", "apache license, version 2.0"), None, ["apache-2.0", "mit"]),
        (("https://creativecommons.org/licenses/by-sa/4.0/",), None, "cc-by-sa-4.0"),
        (("not stated",), None, "unknown"),
        ((), None, "unknown"),
        (("MIT", "not stated"), None, "other"),
        (("ask the author",), None, "other"),
        (("ask the author",), "odc-by", "odc-by"),
    ],
)
def test_the_licence_is_what_the_documents_state(licences: tuple[str, ...], given: str | None, told: object) -> None:
    assert header("parquet", licences=stated(*licences), card={"license": given})["license"] == told


@pytest.mark.parametrize(
    ("written", "hub"),
    [
        ("cc_by_sa_3.0", "cc-by-sa-3.0"), ("CC BY 4.0", "cc-by-4.0"), ("Creative Commons Attribution 4.0", "cc-by-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"), ("GPLv3", "gpl-3.0"),
        ("LGPL-2.1-only", "lgpl-2.1"),
        ("BSD-3-Clause", "bsd-3-clause"), ("proprietary", None), ("", None), ("public domain", None),
    ],
)  # fmt: skip
def test_the_usual_ways_to_write_a_licence(written: str, hub: str | None) -> None:
    assert hub_licence(written) == hub


def test_language_tags_and_size() -> None:
    assert header("parquet")["language"] == ["und"]
    assert header("parquet", languages=["en", "no"])["language"] == ["en", "no"]
    told = header("parquet", languages=["en"], card={"language": ["de"], "tags": ["books", "ladm"]}, rows=1_000)
    assert (told["language"], told["size_categories"]) == (["de"], ["1K<n<10K"])
    assert told["tags"] == ["ladm", "long-context", "pretraining", "books"]
    sizes = {1: "n<1K", 999: "n<1K", 10**6: "1M<n<10M", 10**12: "n>1T"}
    assert {rows: header("parquet", rows=rows)["size_categories"][0] for rows in sizes} == sizes


def test_configurations_are_of_one_kind_and_only_of_splits_that_hold_something() -> None:
    def names(*formats: str) -> dict[str, str]:
        return {one["config_name"]: one["data_files"][0]["path"] for one in header(*formats)["configs"]}

    assert names(*reversed(FORMATS)) == {
        "default": "parquet/train-*.parquet",
        **{form: f"{form}/train-*.pieces.parquet" for form in ("mds", "megatron", "npy")},
    }
    assert names("datasets", "mds", "jsonl.zst") == {"default": "jsonl.zst/train-*.jsonl.zst"}
    assert names("npy", "datasets") == {"default": "datasets/train/*.arrow"}
    assert names("npy", "mds") == {"default": "mds/train-*.pieces.parquet", "npy": "npy/train-*.pieces.parquet"}
    for share, splits in ((0.0, ["train"]), (0.5, ["train", "validation"]), (0.95, ["validation"])):
        (one,) = header(exports=entries("datasets", validation=share))["configs"]
        assert [files["split"] for files in one["data_files"]] == splits
    assert header("npy", splits=[])["configs"] == []


def test_paths_of_the_machine_are_not_shown() -> None:
    shown = {
        "/home/me/st": "/path/to/st", "~/st/": "/path/to/st", "../../tiny": "/path/to/tiny",
        "data/*.jsonl": "data/*.jsonl",
        "/data/**/x/*.jsonl": "/path/to/**/x/*.jsonl", "file:///a/b": "/path/to/b", "s3://bucket/p": "s3://bucket/p",
        "embedded": "embedded", "org/name": "org/name", "score > 1 / 2": "score > 1 / 2",
    }  # fmt: skip
    assert without_local_paths({"a": list(shown), "b": [{"c": 1}]}) == {"a": list(shown.values()), "b": [{"c": 1}]}
    roots = [f"{Path.cwd()}/web/*.jsonl", "books", "s3://b/p", "/one.jsonl"]
    names = (f"{Path.cwd()}/web/a.jsonl", f"{Path.cwd()}/books/x/b.jsonl", "s3://b/p/c.jsonl", "/one.jsonl", "d.jsonl")
    assert [below(name, roots) for name in names] == ["a.jsonl", "x/b.jsonl", "c.jsonl", "one.jsonl", "d.jsonl"]


# -- the folder of a run -------------------------------------------------------------------------------------------


def card_of(answer: Answer, store: Path) -> tuple[Path, dict[str, Any], str]:
    assert answer.code == 0, answer.err
    folder = store / "runs" / answer.record["run_id"] / "export"
    text = (folder / "README.md").read_text()
    return folder, yaml.safe_load(text.split("---\n")[1]), text


def test_all_formats_beside_each_other(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `readers` is not installed")
    store, cache = tmp_path / "store", str(tmp_path / "cache")
    export = [{"format": one, "validation": 0.4, **({"eos": 0} if one in FORMATS[3:] else {})} for one in FORMATS]
    settings = [f"export={json.dumps(export)}", "select.budget_tokens=null", "card={language: [en], tags: [letters]}"]
    folder, head, text = card_of(ladm(*run_arguments(corpus, store, *settings)), store)
    assert {"license": "cc0-1.0", "language": ["en"], "size_categories": ["n<1K"]}.items() <= head.items()
    assert "letters" in head["tags"]
    assert str(tmp_path) not in text
    expected = {
        split: {row["doc_id"] for row in pq.read_table(next((folder / "parquet").glob(f"{split}-*"))).to_pylist()}
        for split in ("train", "validation")
    }
    assert all(expected.values())
    for place, names in {
        folder: (None, "default", "mds", "megatron", "npy"),
        folder / "parquet": (None,),
        folder / "jsonl.zst": (None,),
    }.items():
        for name in names:
            loaded = datasets.load_dataset(str(place), name, cache_dir=cache)
            ids = {
                split: {row["meta"]["doc_id"] if place.name == "jsonl.zst" else row["doc_id"] for row in rows}
                for split, rows in loaded.items()
            }
            assert ids == expected, (place, name)
    saved = datasets.load_from_disk(str(folder / "datasets"))
    assert {split: set(rows["doc_id"]) for split, rows in saved.items()} == expected


@pytest.mark.parametrize(
    "formats",
    [("parquet", "jsonl.zst"), ("jsonl.zst", "npy"), ("datasets", "mds"), ("mds",), ("megatron", "npy")],
)
def test_the_folder_loads_without_a_name_whatever_lies_in_it(
    tmp_path: Path, corpus: Corpus, ladm: Cli, formats: tuple[str, ...]
) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `readers` is not installed")
    store = tmp_path / "store"
    export = [{"format": one, **({"eos": 0} if one in FORMATS[3:] else {})} for one in formats]
    folder, _, _ = card_of(ladm(*run_arguments(corpus, store, f"export={json.dumps(export)}")), store)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows > 0
