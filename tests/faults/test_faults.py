"""The fault suite: `pytest -m faults`. Whatever happens to a run, the next one gives what an undisturbed one gives."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from conftest import Answer, gated_calibration, write_jsonl
from harness import (
    Forker,
    Ledger,
    Running,
    files_in,
    ranked,
    results,
    run_folder,
    stage_reached,
    wait_for,
)
from test_damage import flip_a_byte

from ladm.flows.dag.stages import TABLE
from ladm.flows.orchestration.environment import prefect_server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

EVERYTHING = {
    "ingest.part_bytes": 8_000,
    "select.replay": "{share: 0.2, seed: 3}",
    "deduplicate": "{near: false}",
    "filters": "['welcome:is_welcome']",
    "scorer.beside": "[gzip, longfilter]",
    "scorer.layers": "calibrated",
    "select.rank_by": "longfilter",
    "export": "[{format: parquet, part_bytes: 8000}, {format: jsonl.zst, part_bytes: 8000}]",
}
"""Settings that ask for every stage of a run, for files that are read in parts, and for exports of several parts."""
ANOTHER_SCORE = ("scorer.span=8", "scorer.layers=all", "scorer.calibration=null")
"""Settings by which every window is scored in another way."""
UNCALIBRATED = ("scorer.layers=all", "scorer.calibration=null")
"""Settings that take any model: a calibration is refused with another model than its own."""
RUN_FOLDERS = tuple(dict.fromkeys(row.stored_in for row in TABLE if "calibrate" not in (row.name, row.serves)))
"""The folders that the stages of a run write to."""
KILLS = 20
INTERRUPTS = 5
SEED = 7


class Scene(NamedTuple):
    """A corpus, the arguments of a run on it, and what an undisturbed run made of it."""

    folder: Path
    corpus: Path
    arguments: list[str]
    results: dict[str, bytes]
    rows: list[Any]
    files: int
    """Files in the store after an undisturbed run."""
    forker: Forker

    def start(self, arguments: list[str], before: str = "") -> Running:
        """Start a run; `before` is Python to spoil it with."""
        return self.forker.start(arguments, before)

    def run(self, arguments: list[str], before: str = "") -> Answer:
        """A whole run."""
        return self.start(arguments, before).end()

    @property
    def store(self) -> Path:
        """Where every run of the scene keeps its store: a run's results name it."""
        return self.folder / "store"

    def with_settings(self, *settings: str) -> list[str]:
        return [*self.arguments, *(argument for setting in settings for argument in ("--set", setting))]


@pytest.fixture(scope="module")
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    ledger = Ledger()
    yield ledger
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        reporter.write_line("")
        reporter.write_line(ledger.line(), bold=True)


@pytest.fixture(scope="module")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    folder = tmp_path_factory.mktemp("forker")
    with prefect_server(folder), pytest.MonkeyPatch.context() as patched:
        patched.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
        patched.setenv("PREFECT_API_AUTH_STRING", str(PREFECT_API_AUTH_STRING.value()))
        forker = Forker(folder)
        yield forker
        forker.stop()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, forker: Forker) -> Scene:
    """Four files, four domains, 60 documents in shards of a few, so that every stage has many files to write."""
    folder = tmp_path_factory.mktemp("faults")
    corpus = folder / "corpus"
    corpus.mkdir()
    lengths = random.Random(SEED)
    for number, domain in enumerate(("Letters", "Poems", "Plays", "Essays")):
        write_jsonl(corpus / f"{domain.lower()}.jsonl", domain, number, [lengths.randint(20, 700) for _ in range(15)])
    with (corpus / "plays.jsonl").open("a") as plays:
        plays.write("not JSON\n")
    settings = {
        "sources": f"{corpus}/*.jsonl",
        "ingest.shard_bytes": 12_000,
        "window.length": 256,
        "scorer.model": tiny_model,
        "scorer.span": 16,
        "scorer.d_afs": 2,
        "scorer.d_cds": 2,
        "select.budget_tokens": 8000,
        "execution.retry_seconds": 0.01,
        "scorer.calibration": folder / "calibration.json",
        "decontaminate.against": f"[{folder}/benchmark.txt]",
        "publish": folder / "published",
        **EVERYTHING,
    }
    (folder / "calibration.json").write_text(gated_calibration(tiny_model, 256, 16).model_dump_json())
    (folder / "benchmark.txt").write_text("a passage of a benchmark that no document of this corpus holds at all")
    arguments = ["run", "--json", "--store", str(folder / "store")]
    arguments += [argument for name, value in settings.items() for argument in ("--set", f"{name}={value}")]
    undisturbed = forker.start(arguments).end()
    assert undisturbed.code == 0, undisturbed.err
    store = folder / "store"
    scene = Scene(folder, corpus, arguments, results(store), ranked(store), len(files_in(store)), forker)
    assert undisturbed.record["quarantined"]["records"] == 1
    assert undisturbed.record["stages"]["ingest"]["run"] > 4  # more jobs than files
    assert 30 < len(scene.rows) < 55  # a few are too short
    assert all(any(files_in(store / name)) for name in RUN_FOLDERS)
    assert len(list(store.glob("runs/*/export/**/*.parquet"))) > 2
    store.rename(folder / "undisturbed")
    return scene


@pytest.fixture
def store(scene: Scene) -> Iterator[Path]:
    """The scene's store, empty."""
    shutil.rmtree(scene.store, ignore_errors=True)
    yield scene.store
    shutil.rmtree(scene.store, ignore_errors=True)


@pytest.fixture
def filled(scene: Scene, store: Path) -> Path:
    """The scene's store after an undisturbed run. A copy keeps times, and so nothing in it looks new."""
    shutil.copytree(scene.folder / "undisturbed", store)
    return store


def long_documents(rows: list[Any]) -> set[str]:
    """The ids of those rows that are ranked; which others are replayed follows from all documents together."""
    return {doc_id for _, _, doc_id, _, role in rows if role == "long"}


def as_undisturbed(scene: Scene, store: Path) -> bool:
    """Whether the latest run made what the undisturbed one did, byte for byte."""
    return results(store) == scene.results


# -- the process -----------------------------------------------------------------------------------------------


def test_killed_at_any_moment(scene: Scene, store: Path, ledger: Ledger) -> None:
    """One SIGKILL each in 20 slices of the run, counted by the files it has written, at a random moment in each."""
    dice = random.Random(SEED)
    reached: list[str] = []
    for number in range(KILLS):
        shutil.rmtree(store, ignore_errors=True)
        files = int((number + dice.random()) * scene.files / KILLS)
        pause = dice.random() * 0.03
        victim = scene.start(scene.arguments)
        wait_for(lambda files=files: len(files_in(store)) >= files, victim)  # type: ignore[misc]
        time.sleep(pause)
        victim.kill()
        reached.append(stage_reached(store))
        again = scene.run(scene.arguments)
        assert again.code == 0, (number, again.err)
        ledger.note("kills", scene.rows, ranked(store), as_undisturbed(scene, store))
        assert as_undisturbed(scene, store), f"kill {number} at {files} files, in {reached[-1]}"
    print(f"killed in: {', '.join(reached)}")
    assert {"ingest", "length", "tokenize", "score"} & set(reached), reached
    assert len(set(reached)) >= 4, reached


def test_killed_again_and_again(scene: Scene, store: Path, ledger: Ledger) -> None:
    """The same store, killed each time a little further on, gets there in the end."""
    for files in range(scene.files // 6, scene.files, scene.files // 6):
        victim = scene.start(scene.arguments)
        wait_for(lambda files=files: len(files_in(store)) >= files, victim)  # type: ignore[misc]
        victim.kill()
    again = scene.run(scene.arguments)
    assert again.code == 0, again.err
    assert sum(summary["cached"] for summary in again.record["stages"].values()) > 0
    ledger.note("series of kills", scene.rows, ranked(store), as_undisturbed(scene, store))
    assert as_undisturbed(scene, store)


def test_interrupted_at_any_moment(scene: Scene, store: Path, ledger: Ledger) -> None:
    dice = random.Random(SEED)
    for number in range(INTERRUPTS):
        shutil.rmtree(store, ignore_errors=True)
        files = int((number + dice.random()) * scene.files / INTERRUPTS * 0.9)
        victim = scene.start(scene.arguments)
        wait_for(lambda files=files: len(files_in(store)) > files, victim)  # type: ignore[misc]
        os.kill(victim.pid, signal.SIGINT)
        ended = victim.end()
        assert ended.code == 130, ended.err
        assert not list(store.rglob("*.tmp"))
        again = scene.run(scene.arguments)
        assert again.code == 0, again.err
        ledger.note("interrupts", scene.rows, ranked(store), as_undisturbed(scene, store))
        assert as_undisturbed(scene, store)


def test_two_runs_of_different_settings_at_once(scene: Scene, store: Path, ledger: Ledger) -> None:
    other_settings = scene.with_settings(*ANOTHER_SCORE, "select.budget_tokens=5000")
    alone = scene.run(other_settings)
    assert alone.code == 0, alone.err
    other_rows, other_results = ranked(store), results(store)
    shutil.rmtree(store)
    one, other = scene.start(scene.arguments), scene.start(other_settings)
    ends = [one.end(), other.end()]
    assert [ended.code for ended in ends] == [0, 0], ends
    latest = store / "latest"
    for ended, rows, made in zip(ends, (scene.rows, other_rows), (scene.results, other_results), strict=True):
        latest.write_text(ended.record["run_id"])
        ledger.note("runs beside another", rows, ranked(store), results(store) == made)
        assert results(store) == made


# -- the disk --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(store: Path) -> Iterator[Path]:
    """The store on a disk of its own; who may not mount has no such test."""
    store.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "ladm-faults", store], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield store
    subprocess.run(["umount", "--lazy", store], check=True)


@pytest.mark.parametrize("full_at", [0.02, 0.15, 0.4, 0.65, 0.9])
def test_the_disk_is_full(scene: Scene, small_disk: Path, ledger: Ledger, full_at: float) -> None:
    """Room for a share of what a run writes, counted in the disk's pages of 4 KiB; a hard link takes none."""
    sizes = {path.stat().st_ino: path.stat().st_size for path in files_in(scene.folder / "undisturbed")}
    pages = sum(-(-size // 4096) for size in sizes.values())
    subprocess.run(["mount", "-o", f"remount,size={max(1, int(pages * full_at)) * 4}k", small_disk], check=True)
    full = scene.run(scene.with_settings("execution.retries=1"))
    assert full.code == 1, (full.code, full.err)
    assert "No space left on device" in full.err
    assert not (small_disk / "latest").exists()
    assert not list(small_disk.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = scene.run(scene.with_settings("execution.retries=1"))
    assert again.code == 0, again.err
    # Only the account of the settings, in the card, may differ.
    same = {name for name, content in results(small_disk).items() if scene.results.get(name) == content}
    assert set(scene.results) - same == {"export/README.md"}
    ledger.note("full disks", scene.rows, ranked(small_disk))


@pytest.mark.parametrize("damage", ["truncated", "deleted", "flipped"])
def test_the_store_is_damaged(scene: Scene, filled: Path, ledger: Ledger, damage: str) -> None:
    """One file of every stage, and a record of one; what has to be read again is made again."""
    dice = random.Random(f"{SEED} {damage}")
    victims = [
        dice.choice(sorted(path for path in (filled / stage).glob("*/*") if path.is_file()))
        for stage in (*RUN_FOLDERS, "quarantine", "records")
    ]
    before = {path: path.read_bytes() for path in victims}
    for path in victims:
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[: int(path.stat().st_size * dice.random())])
        elif damage == "deleted":
            path.unlink()
        else:
            flip_a_byte(path, dice.random())
    # Another span reads all windows again. To the first settings, the first results.
    assert scene.run(scene.with_settings(*ANOTHER_SCORE)).code == 0
    again = scene.run(scene.arguments)
    assert again.code == 0, again.err
    for path, content in before.items():
        # One bit is found where a file is read: windows by the other score, what ranks by the ranking, and what is
        # published. Nothing reads what went into a drop list that is whole.
        read_again = damage != "flipped" or path.parts[-3] in ("tokenize", "score", "gate", "rank", "export")
        if read_again and path.suffix != ".json":
            assert path.read_bytes() == content, path
        ledger.note(f"{damage} files", scene.rows, ranked(filled), as_undisturbed(scene, filled))
    assert as_undisturbed(scene, filled)


# -- the input -------------------------------------------------------------------------------------------------


def test_a_source_is_replaced_while_it_is_read(scene: Scene, store: Path, ledger: Ledger) -> None:
    """The run that notices fails and says so; the next one has the new file, the whole of it and nothing else."""
    big = scene.corpus / "big.jsonl"
    write_jsonl(big, "Old", 1, [301] * 800)  # read in some two hundred parts
    try:
        victim = scene.start(scene.arguments)
        assert wait_for(lambda: len(list(store.glob("ingest/*/*.parquet"))) > 12, victim)
        os.kill(victim.pid, signal.SIGSTOP)
        replacement = scene.folder / "replacement"
        write_jsonl(replacement, "New", 2, [301] * 12)
        replacement.replace(big)
        os.kill(victim.pid, signal.SIGCONT)
        ended = victim.end()
        assert ended.code == 1, ended.err
        failures = ended.record["failures"]
        assert {failure["source"] for failure in failures} == {str(big)}
        assert all("changed while the run was reading it" in failure["error"] for failure in failures)
        again = scene.run(scene.arguments)
        assert again.code == 0, again.err
        assert again.record["stages"]["ingest"]["in"] == 60 + 1 + 12
        domains = [domain for domain, *_ in ranked(store)]
        assert "Old" not in domains
        assert domains.count("New") == 12
        ledger.note("replaced sources", ["New"] * 12, [domain for domain in domains if domain == "New"])
    finally:
        big.unlink()
    last = scene.run(scene.arguments)
    assert last.code == 0, last.err
    assert as_undisturbed(scene, store)


def test_the_clock_goes_back(scene: Scene, filled: Path, ledger: Ledger) -> None:
    """Nothing is decided by which time is later: not what is done again, not which run is the newest."""
    earlier = (
        "import datetime as real, ladm.flows.runs.record\n"
        "class Clock(real.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, zone=None):\n"
        "        return super().now(zone) - real.timedelta(days=400)\n"
        "ladm.flows.runs.record.datetime = Clock"
    )
    future = time.time() + 10 * 365 * 86400
    for path in files_in(filled):
        os.utime(path, (future, future))
    before = (filled / "latest").read_text()
    again = scene.run(scene.arguments, earlier)
    assert again.code == 0, again.err
    assert again.record["run_id"] < before
    assert (filled / "latest").read_text() == again.record["run_id"]
    assert {summary["run"] for summary in again.record["stages"].values()} == {0}
    ledger.note("clocks going back", scene.rows, ranked(filled), as_undisturbed(scene, filled))
    assert as_undisturbed(scene, filled)

    # A source whose new version bears an older date is another version.
    poems = scene.corpus / "poems.jsonl"
    content, status = poems.read_bytes(), poems.stat()
    try:
        poems.write_bytes(content.replace(b"river", b"ocean"))
        os.utime(poems, ns=(10**18, 10**18))
        changed = scene.run(scene.arguments, earlier)
        assert changed.code == 0, changed.err
        assert changed.record["stages"]["ingest"]["run"] > 1  # in parts
        assert changed.record["stages"]["score"]["run"] > 0
    finally:
        poems.write_bytes(content)
        os.utime(poems, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert scene.run(scene.arguments).code == 0
    assert as_undisturbed(scene, filled)


# -- the model -------------------------------------------------------------------------------------------------


@pytest.fixture
def model(scene: Scene, tmp_path: Path, tiny_model: Path) -> Iterator[Path]:
    """The tiny model, to be damaged; put back afterwards."""
    shutil.copytree(tiny_model, tmp_path / "whole")
    yield tiny_model
    shutil.copytree(tmp_path / "whole", tiny_model, dirs_exist_ok=True)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_scores_that_are_no_numbers(scene: Scene, store: Path, model: Path, ledger: Ledger, value: str) -> None:
    """A model that breaks down at one token: windows that hold it are named and quarantined, and never ranked."""
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(model / "tokenizer.json")).encode("§").ids
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][ids] = float(value)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    rare = scene.corpus / "rare.jsonl"
    try:
        write_jsonl(rare, "Rare", 9, [300, 310, 320])
        lines = rare.read_text().splitlines()
        lines[1] = lines[1].replace('"text": "', '"text": "§ ')
        rare.write_text("\n".join(lines) + "\n")
        ended = scene.run(scene.with_settings(*UNCALIBRATED, "filters=[]"))
        assert ended.code == 0, ended.err
        assert ended.record["stages"]["score"]["quarantined"] == 1
        (bad,) = [
            row
            for row in pq.read_table(run_folder(store) / "quarantine.parquet").to_pylist()
            if row["stage"] == "score"
        ]
        assert bad["reason"].startswith(f"the score of window {bad['doc_id']}:0 is ")
        rows = ranked(store)
        assert bad["doc_id"] not in {row[2] for row in rows}
        ledger.note(f"{value} scores", ["Rare"] * 2, [domain for domain, *_ in rows if domain == "Rare"])
        assert long_documents(scene.rows) <= long_documents(rows)
    finally:
        rare.unlink()


def test_the_model_is_damaged(scene: Scene, filled: Path, model: Path, ledger: Ledger) -> None:
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    uncalibrated = scene.with_settings(*UNCALIBRATED)
    assert scene.run(uncalibrated).code == 0
    rows, made = ranked(filled), results(filled)
    # One bit: another model, whose scores are never mixed with the old ones.
    flip_a_byte(weights, 0.9)
    calibrated = scene.run(scene.arguments)
    assert (calibrated.code, calibrated.err.count("\n")) == (2, 1), calibrated.err
    other = scene.run(uncalibrated)
    assert other.code in (0, 1), other.err
    assert other.record["stages"]["score"]["cached"] == 0
    ledger.note("damaged models", [], [])
    # Cut off: refused in one line, before any work.
    weights.write_bytes(whole[:-100])
    refused = scene.run(uncalibrated)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert "model.safetensors is damaged, cut short" in refused.err
    ledger.note("damaged models", [], [])
    weights.write_bytes(whole)
    again = scene.run(uncalibrated)
    assert again.code == 0, again.err
    assert again.record["windows_scored"] == 0
    ledger.note("damaged models", rows, ranked(filled), results(filled) == made)
    assert results(filled) == made
    again = scene.run(scene.arguments)
    assert again.record["windows_scored"] == 0
    ledger.note("damaged models", scene.rows, ranked(filled), as_undisturbed(scene, filled))
    assert as_undisturbed(scene, filled)


def test_memory_runs_out_in_a_batch(scene: Scene, store: Path, ledger: Ledger) -> None:
    """A device that holds two windows and no more: the batch is halved until it fits."""
    narrow = (
        "import torch\n"
        "from ladm.tasks.scorers import window_scores\n"
        "whole, sizes = window_scores.one_pass, []\n"
        "def narrow(calculator, wanted, ids_BL, *more, **named):\n"
        "    sizes.append(len(ids_BL))\n"
        "    if len(ids_BL) > 2:\n"
        "        raise torch.OutOfMemoryError('CUDA out of memory')\n"
        "    return whole(calculator, wanted, ids_BL, *more, **named)\n"
        "window_scores.one_pass = narrow\n"
        "main = ladm.flows.cli.main\n"
        "def telling(arguments):\n"
        "    code = main(arguments)\n"
        "    print('sizes', max(sizes), sizes[-1], file=sys.stderr)\n"
        "    return code\n"
        "ladm.flows.cli.main = telling"
    )
    ended = scene.run(scene.arguments, narrow)
    assert ended.code == 0, ended.err
    largest, last = map(int, ended.err.split("sizes ")[1].split())
    assert largest > 2 >= last
    rows = ranked(store)
    ledger.note("full memories", sorted(row[2] for row in scene.rows), sorted(row[2] for row in rows))
