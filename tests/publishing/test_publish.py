"""Publishing: to the Hub by one commit, and to folders with the manifest last; resumed, cached, refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from conftest import Answer, Corpus, run_arguments
from fake_hub import TOKEN, Hub, serving

Cli = Callable[..., Answer]
DATASET = "somebody/selection"
TO_HUB = f"publish=hf://datasets/{DATASET}"
EXPORTS = "export=[{format: parquet, part_bytes: 4000}, jsonl.zst]"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def exported(store: Path, record: dict[str, Any]) -> dict[str, bytes]:
    """Name → content, of the run's exports without the card."""
    folder = store / "runs" / record["run_id"] / "export"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_selection_is_one_commit_and_the_same_one_none(tmp_path: Path, corpus: Corpus, ladm: Cli, hub: Hub) -> None:
    store = tmp_path / "store"
    first = ladm(*run_arguments(corpus, store, TO_HUB, EXPORTS))
    assert first.code == 0, first.err
    files = exported(store, first.record)
    assert len(files) >= 3
    there = hub.datasets[DATASET]
    assert {name: data for name, data in there.items() if "/" in name} == files
    assert b"export_key" in there["README.md"]
    assert b"<run_id>" not in there["README.md"]
    assert hub.private[DATASET]
    assert len(hub.commits) == 1
    assert first.record["stages"]["publish"]["kept"] == len(files) + 1
    hub.asked.clear()
    again = ladm(*run_arguments(corpus, store, TO_HUB, EXPORTS)).record
    assert again["stages"]["publish"] | {"seconds": 0} == again["stages"]["publish"] | {
        "cached": 1,
        "run": 0,
        "seconds": 0,
    }
    assert [one for one in hub.asked if not one.endswith("whoami-v2")] == []
    # another selection: one more commit, in which what is no more is gone
    uploaded = len(hub.uploads)
    other = ladm(*run_arguments(corpus, store, TO_HUB, EXPORTS, "select.budget_tokens=700")).record
    assert len(hub.commits) == 2
    assert {name: data for name, data in hub.datasets[DATASET].items() if "/" in name} == exported(store, other)
    assert len(hub.uploads) > uploaded


def test_an_interrupted_upload_goes_on_and_nothing_is_seen_of_it(
    tmp_path: Path, corpus: Corpus, ladm: Cli, hub: Hub
) -> None:
    store = tmp_path / "store"
    hub.fail_uploads_after = 2
    failed = ladm(*run_arguments(corpus, store, TO_HUB, EXPORTS))
    assert failed.code == 1
    assert "publish: the Hub refuses (403" in failed.record["failures"][0]["error"]
    assert "\n" not in failed.record["failures"][0]["error"]
    assert hub.commits == []
    assert [name for name in hub.datasets[DATASET] if "/" in name] == []
    hub.fail_uploads_after = None
    done = ladm(*run_arguments(corpus, store, TO_HUB, EXPORTS))
    assert done.code == 0, done.err
    assert done.record["stages"]["export"]["run"] == 0
    files = exported(store, done.record)
    assert len(hub.commits) == 1
    assert sorted(hub.uploads) == sorted({hashlib.sha256(data).hexdigest() for data in files.values()}), "each once"


def test_without_a_token_it_is_refused_before_any_work(
    tmp_path: Path, corpus: Corpus, ladm: Cli, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = run_arguments(corpus, tmp_path / "store", TO_HUB)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    unknown = ladm(*arguments)
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)
    assert "publish: the Hub refuses (401" in unknown.err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    none = ladm(*arguments)
    assert (none.code, none.err.count("\n")) == (2, 1)
    assert "publish: no token for the Hub is set; set HF_TOKEN" in none.err
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    silent = ladm(*arguments)
    assert (silent.code, silent.err.count("\n")) == (2, 1)
    assert "publish: the Hub does not answer" in silent.err
    assert not (tmp_path / "store" / "runs").exists()
    assert ladm(*arguments, "--until", "tokenize").code == 0, "a run that publishes nothing needs no token"


@pytest.mark.parametrize(
    "to", ["hf://datasets/one", "hf://somebody/selection", "https://example.org/x", "hf://datasets/a/b/c"]
)
def test_what_is_no_place_to_publish_to_is_refused(tmp_path: Path, corpus: Corpus, ladm: Cli, to: str) -> None:
    answer = ladm(*run_arguments(corpus, tmp_path / "store", f"publish={to}"))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert answer.err.startswith("ladm: publish")


def named(place: Path) -> dict[str, bytes]:
    """Name → content, of what the manifest of a folder names, each as it says."""
    files = json.loads((place / "manifest.json").read_text())["files"]
    found = {one["name"]: (place / one["path"]).read_bytes() for one in files}
    assert [(len(found[one["name"]]), hashlib.sha256(found[one["name"]]).hexdigest()) for one in files] == [
        (one["bytes"], one["sha256"]) for one in files
    ]
    return found


def test_a_folder_names_whole_selections_alone(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, place = tmp_path / "store", tmp_path / "published"
    publish = f"publish={place}"

    def run(budget: int) -> Answer:
        return ladm(*run_arguments(corpus, store, publish, EXPORTS, f"select.budget_tokens={budget}"))

    first = run(2000)
    assert first.code == 0, first.err
    found = named(place)
    assert b"export_key" in found.pop("README.md")
    assert found == exported(store, first.record)
    before = named(place)
    # killed between data and manifest: readers see the earlier selection, whole
    from ladm.tasks.storage.files import Files

    writing = Files.write_bytes

    def full(files: Files, path: str, content: bytes) -> None:
        if path == "manifest.json":
            raise OSError("no space left")
        writing(files, path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Files, "write_bytes", full)
        assert run(700).code == 1
    assert named(place) == before
    second = run(700)
    assert second.code == 0, second.err
    assert {name: data for name, data in named(place).items() if name != "README.md"} == exported(store, second.record)
    manifest = json.loads((place / "manifest.json").read_text())
    assert all((place / path).exists() for path in manifest["before"]), "who still reads the earlier one can"
    run(1500)
    assert not any((place / path).exists() for path in manifest["before"])
    files = {path.relative_to(place).as_posix() for path in (place / "data").rglob("*") if path.is_file()}
    manifest = json.loads((place / "manifest.json").read_text())
    assert files == {*manifest["before"], *(one["path"] for one in manifest["files"])}


def test_what_was_published_is_not_read_again(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    """Where the folder that is published to lies among the sources."""
    place = corpus.folder / "published"
    for sources in (str(corpus.folder), f"{corpus.folder}/**", f"{corpus.folder}/**/*.*"):
        settings = (f"sources={sources}", f"publish={place}", "export=[parquet, jsonl.zst]")
        for _ in range(2):
            answer = ladm(*run_arguments(corpus, tmp_path / "store", *settings))
            assert answer.code == 0, answer.err
            assert answer.record["stages"]["ingest"] | {"in": 9, "kept": 9} == answer.record["stages"]["ingest"]
    assert (place / "manifest.json").is_file()
    assert "are no sources: part of " in answer.err
    # A folder of that name which is the user's own is read.
    (corpus.folder / "letters.jsonl").rename(tmp_path / "letters.jsonl")
    (corpus.folder / "data").mkdir()
    (tmp_path / "letters.jsonl").rename(corpus.folder / "data" / "letters.jsonl")
    settings = (f"sources={corpus.folder}/data", f"publish={corpus.folder}")
    answer = ladm(*run_arguments(corpus, tmp_path / "store", *settings), "--until", "ingest")
    assert answer.record["stages"]["ingest"]["kept"] == 5, answer.err
