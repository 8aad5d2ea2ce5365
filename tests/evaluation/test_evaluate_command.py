"""`ladm evaluate`, and runs by what it finds, through the CLI with a tiny random model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import Answer, Corpus, run_arguments, write_jsonl

from ladm.flows.evaluation.results import CONTRACT
from ladm.tasks.evaluation.contrast_set import JUNK

Cli = Callable[..., Answer]


@pytest.fixture
def documents(corpus: Corpus) -> Corpus:
    """Three domains of twenty documents that fill a window of 256 tokens; one of them is a list by its name."""
    for file in corpus.folder.iterdir():
        file.unlink()
    for seed, domain in enumerate(("Letters", "Poems", "Dictionaries")):
        write_jsonl(corpus.folder / f"{domain}.jsonl", domain, seed, list(range(400, 420)))
    return corpus


def evaluate(corpus: Corpus, store: Path, out: Path, *more: str) -> list[str]:
    settings = [argument for setting in corpus.settings for argument in ("--set", setting)]
    return ["evaluate", "--store", str(store), "--out", str(out), "--format", "json", *settings, *more]


def scanned(answer: Answer, state: str) -> int:
    return sum(line.startswith(f"scan      {state}") for line in answer.err.splitlines())


def test_evaluate_calibrate_score_and_measure_again(
    tmp_path: Path, documents: Corpus, tiny_model: Path, ladm: Cli
) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    first = ladm(*evaluate(documents, store, out, "--windows", "18"))
    assert first.code == 0, first.err
    rows: list[dict[str, Any]] = json.loads(first.out)
    assert {tuple(row) for row in rows} == {CONTRACT}
    contrasts = {row["contrast"] for row in rows}
    assert contrasts == {"spliced", "shuffled", "halves", "interleaved", "lists"} | (contrasts & set(JUNK))
    assert len(contrasts & set(JUNK)) == 9  # one kind for each document of the testing half
    assert {row["scorer"] for row in rows} == {"ladm", "longattn", "prolong", "longfilter", "gzip", "random"}
    assert {row["formula"] for row in rows if row["scorer"] == "ladm"} >= {"published", "no-std", "calibrated", "order"}
    assert {row["half"] for row in rows} == {"test"}
    assert {row["auc_low"] for row in rows if row["contrast"] in JUNK} == {None}, "one window tells no interval"
    for row in rows:
        told = [row[name] for name in ("auc_low", "auc", "auc_high") if row[name] is not None]
        assert 0 <= min(told) <= max(told) <= 1
        assert told == sorted(told)
    assert "the calibration has no gate, so junk may win: 6 real windows of texts" in first.err
    assert "no window of junk of these kinds, for want of documents: " in first.err
    assert "\nverdict: " in first.err
    (one,) = [r for r in rows if (r["contrast"], r["domain"], r["formula"]) == ("spliced", "Poems", "calibrated")]
    assert one["pairs"] == 9  # three of the six documents of this domain are in the testing half
    names = {path.name for path in out.iterdir()}
    pictures = {f"{contrast}.png" for contrast in contrasts}
    assert names == {"evaluation.parquet", "calibration.json", "stability.json", *pictures}
    kept = pq.read_table(out / "evaluation.parquet").to_pylist()
    assert {row["half"] for row in kept} == {"test", "calibrate"}
    calibration = json.loads((out / "calibration.json").read_text())
    assert calibration["window_length"] == 256
    of_calibration = ("calibrated", "calibrated-layers", "dependency", "order")
    assert calibration["expected"] == [row for row in rows if row["formula"] in of_calibration]
    assert scanned(first, "done") == 18 + 3  # and three whole windows in bfloat16

    # the same store: nothing is measured again; one file lost: that one
    second = ladm(*evaluate(documents, store, tmp_path / "again", "--windows", "18"))
    assert (second.out, scanned(second, "done")) == (first.out, 0)
    lost = sorted((store / "scan").rglob("*.parquet"))[0]
    lost.unlink()
    third = ladm(*evaluate(documents, store, tmp_path / "again", "--windows", "18"))
    assert (third.out, scanned(third, "done")) == (first.out, 1)
    # for people: the worst contrasts first, a line of verdict last
    printed = ladm(
        *[
            one
            for one in evaluate(documents, store, tmp_path / "again", "--windows", "18")
            if one not in ("--format", "json")
        ]
    ).out.splitlines()
    assert printed[0].startswith("worst contrast of each scorer")
    assert printed[-1].startswith("verdict: ")
    assert "1.00–1.00" not in "".join(printed)
    # another store: the same table
    elsewhere = ladm(*evaluate(documents, tmp_path / "elsewhere", tmp_path / "again", "--windows", "18"))
    assert elsewhere.out == first.out

    # a run by the calibration: its layers, an order score, and a ranking by either
    by_order = ["scorer.layers=calibrated", f"scorer.calibration={out}/calibration.json", "select.rank_by=order"]
    run = ladm(*run_arguments(documents, store, *by_order))
    assert run.code == 0, run.err
    answer = ladm("sql", "select * from scores join ranking using (doc_id)", "--store", store, "--format", "json")
    scores = json.loads(answer.out)
    assert len(scores) == 60
    for row in scores:
        assert row["layers"] == calibration["layers"]
        assert row["score"] == row["order_score"]
    by_default = ladm(*run_arguments(documents, store, *by_order[:2])).record
    assert (by_default["stages"]["score"]["run"], by_default["stages"]["rank"]["run"]) == (0, 1)

    # what the calibration was made with may be left out; the record and the card say it, and run again as they stand
    scorer = {"model": str(tiny_model), "layers": "calibrated", "calibration": f"{out}/calibration.json"}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"sources": f"{documents.folder}/*.jsonl", "scorer": scorer}))
    more = [part for one in documents.settings if one[:6] in ("window", "select", "execut") for part in ("--set", one)]
    bare = ladm("run", config, "--json", "--store", store, *more).record
    assert {name: bare["config"]["scorer"][name] for name in ("span", "d_afs", "d_cds", "layers")} == {
        "span": 16, "d_afs": 2, "d_cds": 2, "layers": "calibrated",
    }  # fmt: skip
    assert bare["stages"]["score"]["run"] == 0
    card = (store / "runs" / bare["run_id"] / "export" / "README.md").read_text()
    assert "span 16, d_afs 2, d_cds 2" in card
    config.write_text(yaml.safe_dump(bare["config"]))  # the card's is the same, without this machine's paths
    again = ladm("run", config, "--json").record
    assert {summary["run"] for summary in again["stages"].values()} == {0}

    # measured on what it was not made from, without fitting anything
    measured = ladm(
        *evaluate(
            documents, store, tmp_path / "measured", "--calibration", f"{out}/calibration.json", "--windows", "99"
        )
    )
    assert measured.code == 0, measured.err
    assert not (tmp_path / "measured" / "calibration.json").exists()
    pairs = {
        row["domain"]: row["pairs"]
        for row in json.loads(measured.out)
        if (row["contrast"], row["formula"]) == ("spliced", "calibrated")
    }
    used = set(calibration["documents"])
    left = {
        domain: sum(row["doc_id"] not in used for row in scores if row["domain"] == domain)
        for domain in ("Letters", "Poems", "Dictionaries")
    }
    assert {domain: count for domain, count in pairs.items() if domain != "all"} == {
        domain: count**2 for domain, count in left.items() if count >= 3
    }


def test_what_a_calibration_was_not_made_for_is_refused(
    tmp_path: Path, documents: Corpus, tiny_model: Path, ladm: Cli
) -> None:
    calibration = {
        "model": "mine", "model_digest": "0" * 64, "window_length": 256, "span": 16, "d_afs": 2, "d_cds": 2,
        "layers": [0], "ablation": "none",
    }  # fmt: skip
    path = tmp_path / "calibration.json"

    def refused(*settings: str) -> str:
        answer = ladm(*run_arguments(documents, tmp_path / "store", *settings))
        assert (answer.code, answer.out) == (2, ""), answer.err
        (line,) = answer.err.splitlines()
        return line

    calibrated = ["scorer.layers=calibrated", f"scorer.calibration={path}"]
    assert "cannot read" in refused(*calibrated)
    path.write_text("{}")
    assert "is not a calibration" in refused(*calibrated)
    path.write_text(json.dumps(calibration))
    assert "was made for the model 'mine' with digest 000000000000…" in refused(*calibrated)
    digest = ladm("model", "fetch", tiny_model).out.splitlines()[1].removeprefix("sha256 ")
    path.write_text(json.dumps(calibration | {"model_digest": digest, "window_length": 512}))
    assert "was made for windows of 512 tokens, and window.length is 256" in refused(*calibrated)
    assert "none for 256; make one with `ladm evaluate`" in refused("scorer.layers=calibrated")
    assert "calibration is for layers: calibrated" in refused(f"scorer.calibration={path}")
    path.write_text(json.dumps(calibration | {"model_digest": digest}))  # neither dependency nor order
    by_order = refused(*calibrated, "select.rank_by=order", "scorer.beside=gzip")
    assert "select.rank_by: order is not given by the calibration" in by_order
    assert "rank by ladm or gzip, or make one" in by_order
    assert not list((tmp_path / "store").rglob("*.parquet"))
    assert "order comes with a calibration" in refused("select.rank_by=order")
    assert "gzip is not scored; add it to scorer.beside" in refused("select.rank_by=gzip")
    assert "scorer.beside.longattn: layer 7" in refused("scorer.beside={longattn: {layer: 7}}")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--windows", "0"], "--windows: "),
        (["--lists", "("], "--lists: '(' is not a regular expression"),
        (["--set", "window.length=100"], "window.length: 100 tokens are too few"),
        (["--out", "/dev/null/x"], "--out: '/dev/null/x' cannot be written"),
    ],
)
def test_evaluate_refuses(tmp_path: Path, documents: Corpus, ladm: Cli, more: list[str], message: str) -> None:
    answer = ladm(*evaluate(documents, tmp_path / "store", tmp_path / "out", *more))
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1


def test_too_few_documents_are_named(tmp_path: Path, documents: Corpus, ladm: Cli) -> None:
    for name in ("Letters", "Dictionaries", "Poems"):
        write_jsonl(documents.folder / f"{name}.jsonl", name, 1, [400, 401])
    answer = ladm(*evaluate(documents, tmp_path / "store", tmp_path / "out"))
    assert answer.code == 2
    assert "no domain has 3 documents that fill a window in each half, so no calibration was written" in answer.err
    assert "Traceback" not in answer.err


def test_scorers_side_by_side_in_a_run(tmp_path: Path, documents: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    plain = ladm(*run_arguments(documents, store)).record
    beside = "scorer.beside=[longattn, prolong, longfilter, gzip, random]"
    run = ladm(*run_arguments(documents, store, beside, "select.rank_by=random"))
    assert run.code == 0, run.err
    assert (run.record["stages"]["score"]["run"], run.record["stages"]["measure"]["run"]) == (0, 15)
    columns = "doc_id, cds, longattn, prolong, longfilter, gzip, random, score"
    query = f"select {columns} from scores join ranking using (doc_id) order by doc_id"
    rows = json.loads(ladm("sql", query, "--store", store, "--format", "json").out)
    assert len(rows) == 60
    for row in rows:
        assert row["score"] == row["random"]
        assert all(isinstance(row[name], float) for name in ("longattn", "prolong", "longfilter", "gzip"))
    before = json.loads(ladm("sql", query, "--store", store, "--run", plain["run_id"], "--format", "json").out)
    assert [row["cds"] for row in before] == pytest.approx([row["cds"] for row in rows], rel=1e-5)
    assert {row["gzip"] for row in before} == {None}
