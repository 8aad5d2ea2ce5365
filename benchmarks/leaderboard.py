"""Leaderboard: what each way to score selects from a pool of which half is junk.

Six domains; of each, as many windows of junk as of real documents: every named kind, splices and two documents in
turns, all made of the domain's own documents. The budget is a quarter of the real tokens, the same top share of every
domain (`select.allocation: proportional`; windows are of one length). Told are the shares of junk and of splices among
the selected tokens, and each scorer's worst contrast: how often a real document scores above that kind, within the
domain. Real documents are none that the calibration was made from.

    python benchmarks/leaderboard.py [--corpus FOLDER] [--length 1024] [--documents 16]

writes docs/leaderboard.md. The corpus is a folder of .jsonl.zst files in the Pile's form; without one, the project's
own (not part of the repository) where it lies beside it, else the bundled sample.

Dimensions in names: W windows.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from corpus import SHARED

from ladm.tasks.evaluation import broken, contrast_set, junk, passages
from ladm.tasks.models.resolve import ResolvedModel, resolve_model
from ladm.tasks.reading.document_shards import document_id
from ladm.tasks.scorers.calculator import load_calculator
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.gate import features_for, gate_distances, ranking_score
from ladm.tasks.scorers.ladm import LadmConfig, dependency_scores
from ladm.tasks.scorers.loaded_calibration import load_calibration
from ladm.tasks.scorers.registry import BesideConfig
from ladm.tasks.scorers.text import text_columns
from ladm.tasks.scorers.window_scores import Wants, one_pass
from ladm.tasks.tokenizing.tokenizer import load_tokenizer
from ladm.tasks.tokenizing.windows import WindowConfig, cut_documents

OUT = Path(__file__).parents[1] / "docs" / "leaderboard.md"
SAMPLE = Path(__file__).parents[1] / "flows" / "sample"
DOMAINS = 6
FEWEST = 4
SPLICED = contrast_set.SPLICED
JUNK = contrast_set.JUNK
NO_STD = tuple(range(14, 25))
CALIBRATED = "calibrated (the default)"
SEED = 0
Floats = npt.NDArray[np.float64]


@dataclass
class Pooled:
    """A window of the pool, and what was measured of it."""

    domain: str
    kind: str
    """`whole`, `spliced`, `interleaved`, or a kind of junk."""
    ids: npt.NDArray[np.int32]
    found: dict[str, float] = field(default_factory=dict)
    """Score by each scorer."""


def main() -> None:
    """Make the pool, score it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, default=SHARED if SHARED.is_dir() else SAMPLE, metavar="FOLDER")
    parser.add_argument("--length", type=int, default=1024, metavar="TOKENS")
    parser.add_argument("--documents", type=int, default=16, metavar="N", help="real documents of a domain, at most")
    parser.add_argument("--calibration", metavar="PATH", help="default: the shipped one")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    options = parser.parse_args()
    model = resolve_model("embedded", print)
    calibration = load_calibration(options.calibration, "embedded", model.digest, options.length)
    tokenizer = load_tokenizer(model)
    coder = contrast_set.Coder.of(tokenizer)
    windows = pool(real_windows(options.corpus, tokenizer, calibration, options), coder)
    measure(windows, model, calibration, coder.decode)
    text = report(windows, calibration, options)
    options.out.write_text(text, encoding="utf-8")
    print(text)


# -- the pool ------------------------------------------------------------------------------------------------


def real_windows(
    folder: Path, tokenizer: Any, calibration: Calibration, options: argparse.Namespace
) -> dict[str, list[contrast_set.SourceWindow]]:
    """The first windows of real documents, by domain: the six domains with most of them that are no lists."""
    used, lists = set(calibration.documents), contrast_set.ContrastConfig()
    found: dict[str, list[contrast_set.SourceWindow]] = {}
    for doc_id, domain, record in documents(folder):
        meta = record["meta"]
        is_real = meta.get("kind", "whole") == "whole" and not contrast_set.is_list(lists, domain)
        if doc_id in used or not is_real or len(found.get(domain, [])) == options.documents:
            continue
        (cut,) = cut_documents([record["text"]], tokenizer, WindowConfig(length=options.length))
        if cut.windows:
            window = contrast_set.SourceWindow(doc_id, domain, cut.windows[0].input_ids.astype(np.int32))
            found.setdefault(domain, []).append(window)
    enough = sorted((name for name in found if len(found[name]) >= FEWEST), key=lambda name: -len(found[name]))
    if not enough:
        raise SystemExit(
            f"--corpus: no domain of {folder} has {FEWEST} documents of {options.length} tokens that the calibration "
            "was not made from; give another folder"
        )
    return {name: found[name] for name in sorted(enough[:DOMAINS])}


def documents(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every document's id in a run on the folder, its domain and its record, in an order that says nothing."""
    found = []
    for path in sorted(folder.resolve().glob("*.jsonl.zst")):
        with path.open("rb") as file:
            lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8", newline="\n")
            for number, line in enumerate(lines, start=1):
                record = json.loads(line)
                digest = hashlib.sha256(record["text"].encode()).hexdigest()
                found.append((digest, document_id(path.name, number, digest), record))
    for _, doc_id, record in sorted(found, key=lambda one: one[0]):
        yield doc_id, record["meta"]["pile_set_name"], record


def pool(real: dict[str, list[contrast_set.SourceWindow]], coder: contrast_set.Coder) -> list[Pooled]:
    """As many windows of junk as of real documents; in turns of all kinds, each domain beginning elsewhere."""
    kinds = [SPLICED, broken.INTERLEAVED, *JUNK]
    windows = []
    for rank, (domain, whole) in enumerate(real.items()):
        windows += [Pooled(domain, "whole", window.ids) for window in whole]
        for place, base in enumerate(whole):
            kind = kinds[(place + rank * len(kinds) // len(real)) % len(kinds)]
            others = [one for one in whole if one is not base]
            random = np.random.default_rng(zlib.crc32(f"{SEED} {base.doc_id}".encode()))
            if kind == SPLICED:
                parts = passages.spliced(others, len(base.ids), random)
                ids = np.concatenate([source.ids[start:end] for source, start, end in parts])
            elif kind == broken.INTERLEAVED:
                ids = broken.joined(broken.interleaved(len(base.ids), random), [base.ids, others[0].ids])
            else:
                ids = junk.junk_ids(kind, contrast_set.junk_source(base, others, coder), SEED)
            windows.append(Pooled(domain, kind, ids))
    return windows


# -- the scores ----------------------------------------------------------------------------------------------


def measure(
    windows: Sequence[Pooled], model: ResolvedModel, calibration: Calibration, text_of: Callable[[Any], str]
) -> None:
    """Score every window by every scorer, in one pass each (and the snippets of those that need them)."""
    config = calibration.applied(LadmConfig(dtype="float32", device="cpu"))
    calculator = load_calculator(model.path, config, head=True)
    layers = tuple(range(calculator.n_layers))
    length = len(windows[0].ids)
    beside = BesideConfig.model_validate({"longattn": {"layer": 0}, "prolong": {}, "longfilter": {}, "random": {}})
    needs = beside.needs(length)
    wants = Wants(config, length, layers, needs, calibration.weights, calibration.profiled)
    began = time.perf_counter()
    for number, window in enumerate(windows):
        ids_BL = calculator_ids(window.ids)
        states_of = calibration.weights.states_of
        found = wants.read(one_pass(calculator, wants.of_a_pass, ids_BL, needs.targets, states_of=states_of))
        text = text_of(window.ids)
        for name, ablation, chosen in (
            ("published, all layers", "none", layers),
            ("no-std, layers 14–24", "no-std", NO_STD),
            ("its layers alone", calibration.ablation, calibration.layers),
        ):
            formula = config.model_copy(update={"formula": "published", "ablation": ablation})
            by_layer = [dependency_scores(formula, wants.plan, found.mean_pfs(layer))[0] for layer in chosen]
            window.found[name] = float(np.mean(by_layer))
        profile_MHF = found.profile_of(0, calibration.profiled)
        by_profile, coherent_E = found.scores(0, window.ids)
        columns = text_columns(window.ids, text)
        window.found[CALIBRATED] = ranking(
            calibration,
            profile_MHF,
            columns,
            coherent_E,
            by_profile.get("dependency"),
            window.found.pop("its layers alone"),
        )
        window.found |= beside.scores(found.evidence(calculator, 0, window.ids, text_of))
        window.found["gzip"] = columns["gzip_ratio"]
        print(f"\r{number + 1} of {len(windows)} windows, {time.perf_counter() - began:.0f} s", end="", flush=True)
    print()
    add_gzip_band(windows)


def calculator_ids(ids_L: npt.NDArray[np.int32]) -> Any:
    """One window as the model takes it."""
    import torch  # noqa: PLC0415

    return torch.as_tensor(ids_L[None].astype(np.int64))


def ranking(
    calibration: Calibration,
    profile_MHF: Any,
    columns: dict[str, float],
    coherent_E: Any,
    dependency: float | None,
    cds: float,
) -> float:
    """What the calibration ranks a window by: minus infinity where its gate holds it back."""
    gate = calibration.gate
    if gate is None:
        return cds if dependency is None else dependency
    places = [calibration.profiled.index(layer) for layer in gate.layers]
    features = features_for(gate, profile_MHF[places].astype(np.float64).mean(axis=1), columns, coherent_E)
    unlikeness = float(gate_distances(gate, features[None])[0])
    if unlikeness > gate.threshold:
        return -np.inf
    return cds if dependency is None else ranking_score(gate, dependency, unlikeness)


def add_gzip_band(windows: Sequence[Pooled]) -> None:
    """OLMo 3's filter: the 20 % most and the 20 % least compressible are out, the others are ranked at random."""
    ratio_W = np.array([window.found.pop("gzip") for window in windows])
    low, high = np.quantile(ratio_W, [0.2, 0.8])
    for window, ratio in zip(windows, ratio_W, strict=True):
        within = low <= ratio <= high
        window.found["gzip band (OLMo 3), then random"] = window.found["random"] if within else -np.inf


# -- the table -----------------------------------------------------------------------------------------------


def selected(windows: Sequence[Pooled], name: str) -> list[Pooled]:
    """A quarter of each domain's real tokens: its best windows; of equal ones, whichever a hash puts first."""
    chosen = []
    for domain in dict.fromkeys(window.domain for window in windows):
        own = [window for window in windows if window.domain == domain]
        share = max(1, round(sum(window.kind == "whole" for window in own) / 4))
        own.sort(key=lambda window: (-window.found[name], zlib.crc32(window.ids.tobytes())))
        chosen += [window for window in own[:share] if window.found[name] > -np.inf]
    return chosen


def worst(windows: Sequence[Pooled], name: str) -> tuple[str, float]:
    """The kind that real documents score above least often, and how often they do."""
    aucs = {}
    for kind in sorted({window.kind for window in windows} - {"whole"}):
        above = []
        for broken_one in (window for window in windows if window.kind == kind):
            real = [one.found[name] for one in windows if (one.domain, one.kind) == (broken_one.domain, "whole")]
            other = broken_one.found[name]
            above += [float(one > other) + 0.5 * float(one == other) for one in real]
        aucs[kind] = float(np.mean(above))
    return min(aucs.items(), key=lambda item: item[1])


def report(windows: Sequence[Pooled], calibration: Calibration, options: argparse.Namespace) -> str:
    """The page."""
    real = [window for window in windows if window.kind == "whole"]
    rows = []
    for name in windows[0].found:
        chosen = selected(windows, name)
        of_junk = sum(window.kind in JUNK for window in chosen) / max(1, len(chosen))
        of_splices = sum(window.kind in (SPLICED, broken.INTERLEAVED) for window in chosen) / max(1, len(chosen))
        kind, auc = worst(windows, name)
        rows.append((of_junk, -auc, f"| {name} | {of_junk:.0%} | {of_splices:.0%} | {kind} ({auc:.2f}) |"))
    gate = calibration.gate
    held = sum(window.found[CALIBRATED] == -np.inf for window in real)
    about_gate = f"Its gate holds back {held} of the {len(real)} real windows." if gate else "It has no gate."
    given = "" if options.corpus.resolve() in (SHARED.resolve(), SAMPLE) else f" --corpus {options.corpus}"
    given += " --calibration …" if options.calibration else ""
    made = (
        f"made like the shipped one, from {len(calibration.documents)} documents" if options.calibration else "shipped"
    )
    lines = "\n".join(row for *_, row in sorted(rows))
    kinds, domains = sorted({window.kind for window in windows} - {"whole"}), len({window.domain for window in windows})
    return f"""# Leaderboard: what each scorer selects from a pool of which half is junk

Written by `python benchmarks/leaderboard.py --length {options.length} --documents {options.documents}{given}`.

SmolLM2-135M (embedded) in float32, windows of {options.length:,} tokens. {len(windows)} windows of {domains} domains,
half of them the first windows of real documents that the calibration ({made}) was not made from, half made of the
same ones:
{", ".join(kinds)}.
The budget is a quarter of the real tokens, the same share of every domain. {about_gate} A pool of
{len(windows)} windows is small: one window more or less is {1 / max(1, round(len(real) / 4)):.0%} of what is selected.

| ranked by | junk, of the selected tokens | splices and interleaved | worst contrast (AUC) |
|---|---|---|---|
{lines}

`gzip band` drops the 20 % most and the 20 % least compressible windows of the pool, as OLMo 3 does, and takes of the
others at random. The pool is made by the project's own makers of junk (`tasks/evaluation/junk.py`), on which nothing is
fitted; `longattn` reads layer 0; what each scorer is, and what this does not say, is in [evaluation.md](evaluation.md).
"""


if __name__ == "__main__":
    main()
