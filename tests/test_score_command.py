"""`ladm score`: text files and Parquet windows, as a table and as JSON, and what it refuses."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SHARED, Answer, sentence

from ladm.flows.score_files import score_files
from ladm.tasks.scorers.ladm import LadmConfig, WindowScore

Cli = Callable[..., Answer]
SMALL_SPANS = ["--span", "16", "--d-afs", "2", "--d-cds", "2"]


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    """Three windows of two lengths."""
    rows = [np.arange(length, dtype=np.int64) % 250 for length in (256, 256, 300)]
    path = tmp_path / "windows.parquet"
    pq.write_table(pa.table({"input_ids": pa.array([row.tolist() for row in rows])}), path)
    return path


def objects(answer: Answer) -> list[dict[str, object]]:
    assert answer.code == 0, answer.err
    return [json.loads(line) for line in answer.out.splitlines()]


def test_parquet_rows_are_windows_as_they_stand(windows: Path, tiny_model: Path, ladm: Cli) -> None:
    scored = objects(ladm("score", windows, "--model", tiny_model, *SMALL_SPANS, "--format", "json"))
    assert [(one["window"], one["tokens"], one["layers"]) for one in scored] == [
        (0, 256, [0, 1]),
        (1, 256, [0, 1]),
        (2, 300, [0, 1]),
    ]
    for one in scored:
        assert one["cds"] == pytest.approx(np.mean(one["cds_per_layer"]))
    assert scored[0]["cds"] == pytest.approx(scored[1]["cds"], rel=1e-6)
    assert scored[0]["cds"] != pytest.approx(scored[2]["cds"], rel=1e-3)


def test_options_reach_the_scorer(windows: Path, tiny_model: Path, ladm: Cli) -> None:
    def first(*options: str) -> dict[str, object]:
        return objects(ladm("score", windows, "--model", tiny_model, *SMALL_SPANS, *options, "--format", "json"))[0]

    plain = first()
    assert first("--layers", "1")["cds_per_layer"] == pytest.approx(plain["cds_per_layer"][1:])  # type: ignore[index]
    results = [plain["cds"], first("--ablation", "no-std")["cds"], first("--ablation", "no-length-weights")["cds"]]
    assert len({round(float(str(one)), 9) for one in results}) == 3


def test_text_files_as_a_table(tmp_path: Path, tiny_model: Path, ladm: Cli) -> None:
    import random

    text = tmp_path / "letter.txt"
    text.write_text(sentence(random.Random(5), 600), encoding="utf-8")
    whole = ladm("score", text, "--model", tiny_model, *SMALL_SPANS)
    assert whole.code == 0, whole.err
    header, line = whole.out.splitlines()
    assert header.split() == ["cds", "tokens", "window", "file"]
    assert line.split()[2:] == ["0", str(text)]
    pieces = ladm("score", text, "--model", tiny_model, *SMALL_SPANS, "--length", "256", "--take", "all")
    assert len(pieces.out.splitlines()) == 1 + int(line.split()[1]) // 256


def test_refused_in_one_line(tmp_path: Path, windows: Path, tiny_model: Path, ladm: Cli) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"ids": [[1, 2]]}), other)
    strings = tmp_path / "strings.parquet"
    pq.write_table(pa.table({"input_ids": ["a"]}), strings)
    beyond = tmp_path / "beyond.parquet"
    pq.write_table(pa.table({"input_ids": [[10**6] * 256]}), beyond)
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(windows.read_bytes()[:-3])
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    short = tmp_path / "short.txt"
    short.write_text("A river.")
    cases: list[tuple[list[object], str]] = [
        ([tmp_path / "none.txt"], "no such file"),
        ([other], "no column input_ids; its columns are ids"),
        ([strings], "not a list of integers"),
        ([beyond], "the model knows 0 to"),
        ([damaged], "not a readable Parquet file"),
        ([binary], "not UTF-8"),
        ([short], "with these spans a window has at least"),
        ([windows, "--span", "64"], "with these spans a window has at least"),
        ([windows, "--layers", "7"], "scorer.layers"),
        ([windows, "--layers", "x"], "layers"),
        ([windows, "--formula", "other"], "formula"),
        ([windows, "--span", "many"], "--span"),
        ([windows, "--model", tmp_path / "nothing"], "scorer.model"),
        ([windows, "--device", "cuda:7"], "scorer.device"),
    ]
    for arguments, line in cases:
        answer = ladm("score", "--model", tiny_model, *SMALL_SPANS, *arguments)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), (arguments, answer)
        assert line in answer.err, (arguments, answer.err)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups that are read, as they are; -1 where a whole file is."""
    seen: list[int] = []

    class Watched(pq.ParquetFile):  # type: ignore[misc]
        def read(self, *arguments: object, **more: object) -> object:
            seen.append(-1)
            return super().read(*arguments, **more)

        def iter_batches(self, *arguments: object, row_groups: list[int], **more: object) -> object:
            seen.extend(row_groups)
            return super().iter_batches(*arguments, row_groups=row_groups, **more)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    return seen


def test_parquet_is_read_row_group_by_row_group(tmp_path: Path, tiny_model: Path, reads: list[int]) -> None:
    """Once to check every row; then what is scored first is told before the second group is read again."""
    path = tmp_path / "windows.parquet"
    rows = [[number] * 256 for number in range(50)]
    pq.write_table(pa.table({"input_ids": rows}), path, row_group_size=20)
    scorer = LadmConfig(model=str(tiny_model), span=16, d_afs=2, d_cds=2)
    scored = score_files([str(path)], scorer)
    first = next(scored)
    assert (first["window"], reads) == (0, [0, 1, 2, 0])
    assert [one["window"] for one in scored] == list(range(1, 50))
    assert reads == [0, 1, 2, 0, 1, 2]


def held(path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most bytes that NumPy and Arrow hold while a file is scored by something that takes no memory."""
    from ladm.tasks.scorers import window_scores

    def no_score(calculator: object, config: LadmConfig, ids_BL: np.ndarray, *_: object) -> list[WindowScore]:
        most[0] = max(most[0], pa.total_allocated_bytes() - before)
        return [WindowScore(1.0, [1.0], [0]) for _ in ids_BL]

    monkeypatch.setattr(window_scores, "score_windows", no_score)
    before, most = pa.total_allocated_bytes(), [0]
    tracemalloc.start()
    assert sum(1 for _ in score_files([str(path)], LadmConfig(model=str(model), span=16))) > 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak + most[0]


@pytest.mark.parametrize("row_group", [64, 100_000])
def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, tiny_model: Path, row_group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids_BL = np.random.default_rng(1).integers(0, 256, (400, 2048), dtype=np.int64)
    found = []
    for times in (1, 5):
        path = tmp_path / f"{times}.parquet"
        column = pa.array([row for _ in range(times) for row in ids_BL], type=pa.list_(pa.int64()))
        pq.write_table(pa.table({"input_ids": column}), path, row_group_size=row_group)
        del column
        found.append(held(path, tiny_model, monkeypatch))
    # Five times the rows are 33 MB; some of the first file's figure is what is made once, such as modules.
    assert found[1] < found[0] + (1 << 20), found


def test_a_bad_row_is_told_before_any_is_scored(tmp_path: Path, tiny_model: Path, ladm: Cli) -> None:
    good: list[int | None] = [7] * 256
    for bad, line in (
        ([10**6] * 256, "row 30: token ids from 1000000 to 1000000; the model knows 0 to"),
        ([7] * 3, "row 30: 3 tokens; with these spans a window has at least"),
        ([7] * 5000, "row 30: 5000 tokens; the model's context is 2048"),
        (None, "row 30: 0 tokens"),
        ([*good[1:], None], "row 30: 1 of its token ids are null"),
    ):
        path = tmp_path / "windows.parquet"
        column = pa.array([good] * 30 + [bad] + [good] * 9, type=pa.list_(pa.int32()))
        pq.write_table(pa.table({"input_ids": column}), path, row_group_size=20)
        answer = ladm("score", path, "--model", tiny_model, *SMALL_SPANS)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
        assert f"windows.parquet {line}" in answer.err


def test_the_published_codes_scores_through_the_command(tmp_path: Path, ladm: Cli) -> None:
    """Every golden case by the road a user takes: Parquet in, JSON out."""
    golden = SHARED / "golden"
    if not (golden / "cases.json").exists():
        pytest.skip("../shared/golden is not here")
    ids = np.load(golden / "input_ids.npz")
    names = {"No": "none", "no_std": "no-std", "no_len_weight": "no-length-weights"}
    for case in json.loads((golden / "cases.json").read_text()):
        path = tmp_path / f"{case['case']}.parquet"
        pq.write_table(pa.table({"input_ids": ids[case["case"]].tolist()}), path)
        spans = ["--span", case["span"], "--d-afs", case["d_afs"], "--d-cds", case["d_cds"]]
        scored = objects(
            ladm("score", path, "--model", golden / case["model"], *spans, "--ablation", names[case["ablation"]],
                 "--format", "json")
        )  # fmt: skip
        assert [one["cds"] for one in scored] == pytest.approx(case["cds"], rel=1e-4)
        for one, expected in zip(scored, case["cds_per_layer"], strict=True):
            assert one["cds_per_layer"] == pytest.approx(expected, rel=1e-4)
