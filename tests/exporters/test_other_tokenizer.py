"""`export.tokenizer`: tokens for another model than the one that scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments

Cli = Callable[..., Answer]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder with a tokenizer alone: no weights, no config.json; every character is a token, and `<end>` one more."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path / "other-model"
    folder.mkdir()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate([*alphabet, "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return folder


def flat(store: Path, answer: Answer) -> tuple[np.ndarray[Any, Any], list[dict[str, Any]], dict[str, Any]]:
    folder = store / "runs" / answer.record["run_id"] / "export" / "npy"
    (tokens,) = folder.glob("*.npy")
    (pieces,) = folder.glob("*.pieces.parquet")
    return (
        np.fromfile(tokens, np.uint16),
        pq.read_table(pieces).to_pylist(),
        json.loads((folder / "tokens.json").read_text()),
    )


@pytest.mark.parametrize("pack", [None, 128])
def test_tokens_are_those_of_the_other_tokenizer(
    tmp_path: Path, corpus: Corpus, ladm: Cli, other: Path, pack: int | None
) -> None:
    from tokenizers import Tokenizer

    store = tmp_path / "store"
    entry = {"format": "npy", "tokenizer": str(other), **({"pack": {"length": pack}} if pack else {})}
    answer = ladm(*run_arguments(corpus, store, f"export={json.dumps(['parquet', entry])}"))
    assert answer.code == 0, answer.err
    ids, pieces, about = flat(store, answer)
    tokenizer = Tokenizer.from_file(str(other / "tokenizer.json"))
    assert about["eos_token_id"] == tokenizer.token_to_id("<end>") == about["vocab_size"] - 1
    (texts,) = (store / "runs" / answer.record["run_id"] / "export" / "parquet").glob("*.parquet")
    by_id = {row["doc_id"]: row["text"] for row in pq.read_table(texts).to_pylist()}
    runs: dict[str, list[tuple[int, list[int]]]] = {}
    begin = 0
    for piece in sorted(pieces, key=lambda piece: (piece["row"], piece["row_start"])):
        start = piece["row"] * pack + piece["row_start"] if pack else begin
        begin = start + piece["tokens"]
        runs.setdefault(piece["doc_id"], []).append((piece["doc_start"], ids[start:begin].tolist()))
    found = {doc_id: [one for _, run in sorted(parts) for one in run] for doc_id, parts in runs.items()}
    assert {doc_id: tokenizer.decode(one[:-1]) for doc_id, one in found.items()} == by_id
    assert {one[-1] for one in found.values()} == {about["eos_token_id"]}
    # another tokenizer is another export; the same one elsewhere is the same
    moved = other.rename(tmp_path / "moved")
    for place, run in ((moved, 0), (corpus_model(answer), 1)):
        again = ladm(
            *run_arguments(corpus, store, f"export={json.dumps([{**entry, 'tokenizer': str(place), 'eos': 0}])}")
        )
        assert again.code == 0, again.err
        assert again.record["stages"]["rank"]["run"] == 0
        assert run == 0 or flat(store, again)[2]["vocab_size"] != about["vocab_size"]


def corpus_model(answer: Answer) -> str:
    return str(answer.record["config"]["scorer"]["model"])


def test_what_is_no_tokenizer_is_refused_in_one_line(
    tmp_path: Path, corpus: Corpus, ladm: Cli, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    damaged = Path(shutil.copytree(other, tmp_path / "damaged"))
    (damaged / "tokenizer.json").write_text("{")
    endless = Path(shutil.copytree(other, tmp_path / "endless"))
    (endless / "tokenizer_config.json").unlink()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for reference, told in {
        str(tmp_path / "nowhere"): "does not exist here",
        str(empty): "has no tokenizer files",
        str(damaged): "cannot be loaded",
        "": "is empty",
        "no-such-org/no-such-model": "could not be fetched from the Hugging Face hub",
    }.items():
        export = json.dumps(["parquet", {"format": "mds", "tokenizer": reference}])
        answer = ladm(*run_arguments(corpus, tmp_path / "store", f"export={export}"))
        assert answer.code == 2, answer.err
        (line,) = [one for one in answer.err.splitlines() if one.startswith("ladm: ")]
        assert line.startswith("ladm: export.1.tokenizer: ")
        assert told in line
    export = json.dumps([{"format": "mds", "tokenizer": str(endless)}])
    answer = ladm(*run_arguments(corpus, tmp_path / "store", f"export={export}"))
    assert answer.code == 2
    assert "ladm: export.0.eos: the tokenizer of " in answer.err
    text = json.dumps([{"format": "parquet", "tokenizer": str(other)}])
    assert ladm(*run_arguments(corpus, tmp_path / "store", f"export={text}")).code == 2
