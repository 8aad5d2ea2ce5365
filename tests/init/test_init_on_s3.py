"""`ladm init` on a bucket: what it writes is as on disk, and runs as it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs
from conftest import Answer
from test_init import FORMS
from test_s3 import BUCKET, server

import ladm as package
from ladm.flows.config import load_config

Cli = Callable[..., Answer]
__all__ = ["server"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_bucket_is_looked_at_as_a_folder(
    tmp_path: Path,
    ladm: Cli,
    server: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    form: Callable[[Path], dict[str, int]],
) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    place, config, store = tmp_path / "corpus", tmp_path / "config.yaml", str(tmp_path / "store")
    expected = form(place)
    there = f"s3://{BUCKET}/init/{form.__name__}/corpus"
    bucket = s3fs.S3FileSystem(endpoint_url=server["AWS_ENDPOINT_URL"])
    for path in place.rglob("*"):
        if path.is_file():
            bucket.pipe(f"{there}/{path.relative_to(place)}", path.read_bytes())
    answer = ladm("init", there, "--out", config, "--store", store)
    assert answer.code == 0, answer.err
    run = package.run(config, until="ingest", progress=False)
    assert Counter(one["domain"] for one in run.sql("select domain from documents").to_pylist()) == expected
    assert run.quarantine().to_pylist() == []
    here = load_config(str(place), store=store)
    assert [one.domain for one in load_config(str(config)).sources] == [one.domain for one in here.sources]
