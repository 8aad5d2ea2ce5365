"""The end-of-document token, the type of the ids, whole documents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladm.tasks.errors import ConfigError
from ladm.tasks.exporters.formats import export_config
from ladm.tasks.exporters.megatron import MegatronExporter
from ladm.tasks.exporters.npy import NpyExporter
from ladm.tasks.exporters.tokens import document_ids, settled
from ladm.tasks.job import Job
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.storage.store import Store
from ladm.tasks.tokenizing.tokenizer import load_tokenizer


def test_the_tokenizer_names_the_end_of_a_document(tiny_model: Path, tmp_path: Path) -> None:
    entry = export_config({"format": "npy"})
    with pytest.raises(ConfigError, match=r"^export\.2\.eos: the tokenizer of .* names no end-of-text token; give"):
        settled(entry, resolve_model(str(tiny_model)), "export.2")
    named = tmp_path / "named"
    shutil.copytree(tiny_model, named)
    config = json.loads((named / "tokenizer_config.json").read_text())
    (named / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": {"content": "~"}}))
    model = resolve_model(str(named))
    assert settled(entry, model, "export.2").model_dump()["eos"] == load_tokenizer(model).token_to_id("~")
    given = export_config({"format": "npy", "eos": 7})
    assert settled(given, model, "export.2") == given
    with pytest.raises(
        ConfigError, match=r"^export\.0\.eos: the tokenizer of .* has no token 9000; its ids end at \d+$"
    ):
        settled(export_config({"format": "mds", "eos": 9000}), model, "export.0")
    text = export_config({"format": "parquet"})
    assert settled(text, resolve_model(str(tiny_model)), "export.0") is text


@pytest.mark.parametrize("odd", ["[]", "null", '{"eos_token": 5}', '{"eos_token": {}}', "{"])
def test_a_damaged_account_of_the_tokenizer_names_no_end(tiny_model: Path, tmp_path: Path, odd: str) -> None:
    named = tmp_path / "named"
    shutil.copytree(tiny_model, named)
    (named / "tokenizer_config.json").write_text(odd)
    with pytest.raises(ConfigError, match=r"^export\.0\.eos: the tokenizer of .* names no end-of-text token"):
        settled(export_config({"format": "npy"}), resolve_model(str(named)), "export.0")


def test_the_smallest_type_that_holds_the_vocabulary(tiny_model: Path, tmp_path: Path) -> None:
    digest = resolve_model(str(tiny_model)).tokenizer_digest
    types: dict[str, list[str]] = {}
    for form, exporter_class in {"npy": NpyExporter, "megatron": MegatronExporter}.items():
        config: Any = export_config({"format": form, "eos": 0})
        job = Job(
            stage="export", label=form, store="", config={}, identity=[digest], environment={"model": str(tiny_model)}
        )
        exporter: Any = exporter_class(config, job, Store(str(tmp_path)), "export")
        for vocabulary in (2**16, 2**16 + 1):
            exporter.vocabulary = vocabulary
            types.setdefault(form, []).append(exporter.file_dtype.name)
    assert types == {"npy": ["uint16", "uint32"], "megatron": ["uint16", "int32"]}


def test_a_long_document_is_tokenized_whole(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(resolve_model(str(tiny_model)))
    text = "a river and a stone window in the garden " * 700
    ids = document_ids([text, "", "stone"], tokenizer, 5)
    assert ids[0].tolist() == [*tokenizer.encode(text, add_special_tokens=False).ids, 5]
    assert ids[1].tolist() == [5]
    assert all(one.dtype == np.int32 for one in ids)
