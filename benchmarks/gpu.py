"""Benchmark: scoring on an NVIDIA GPU, in bfloat16, against plain forward passes; and what bfloat16 does to the ranks.

The competitors are transformers' own forward pass (`attn_implementation="sdpa"`, no head, no cache), as it is and with
the parts compiled that `ladm` compiles. All run by turns in one process, over the same batch of 65,536 tokens of real
text, from token ids on the host to scores on the host. The second table scores windows in float32 and in bfloat16.

    python benchmarks/gpu.py [--lengths 4096 8192 32768] [--rounds 7] [--windows 200]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from corpus import SHARED, documents
from results import write_section
from transformers import AutoModel

from ladm.tasks.models.resolve import ResolvedModel, resolve_model
from ladm.tasks.scorers.calculator import load_calculator
from ladm.tasks.scorers.compiled_parts import compile_parts, kernels_work
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.loaded_calibration import load_calibration
from ladm.tasks.scorers.window_scores import score_windows
from ladm.tasks.tokenizing.tokenizer import load_tokenizer

PLAIN = "plain forward pass (transformers, sdpa)"
COMPILED = "the same, MLPs and norms compiled"
PUBLISHED = "published formula, all layers, exact"
CALIBRATED = "calibrated: dependency and order"
VARIANTS = (PLAIN, COMPILED, PUBLISHED, CALIBRATED)
BATCH_TOKENS = 65_536
WINDOW = 4_096
PACKAGES = ["ladm", "torch", "triton", "transformers"]


def main() -> None:
    """Run the benchmark and write its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, default=SHARED, metavar="FOLDER")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 8192, 32768], metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="by turns; the medians are taken")
    parser.add_argument("--windows", type=int, default=200, metavar="N", help="scored in both precisions")
    options = parser.parse_args()
    if not kernels_work(torch.device("cuda")):
        parser.error("there is no NVIDIA GPU here that the kernels work on")
    model = resolve_model("embedded", print)
    windows_NL = corpus_windows(model, options.corpus, options.windows)
    gpu = torch.cuda.get_device_name()
    text = (
        f"SmolLM2-135M in bfloat16 on one {gpu}, batches of {BATCH_TOKENS:,} tokens of the corpus, {options.rounds} "
        "rounds by turns after two to warm up; ratios are medians of each round's own. Peak memory is what PyTorch "
        "held at once, its weights included. The model is made for 8,192 tokens; longer windows show what "
        "they cost, not what they are worth."
    )
    columns = ["tokens", "what", "wall", "tokens a second", "wall ÷ plain", "peak memory", "÷ plain"]
    rows = [row for length in options.lengths for row in costs(model, windows_NL, length, options.rounds)]
    lengths = " ".join(map(str, options.lengths))
    command = f"python benchmarks/gpu.py --lengths {lengths} --rounds {options.rounds} --windows {options.windows}"
    print(write_section("Scoring on a GPU", command, PACKAGES, columns, rows, text))
    text = (
        f"{len(windows_NL)} windows of {WINDOW:,} tokens, one a document of the corpus, scored on one {gpu} in float32 "
        "and in bfloat16, as a GPU does by default."
    )
    columns = ["score", "Spearman's rank correlation", "of the best quarter, the same", "median relative difference"]
    print(write_section("bfloat16 against float32", command, PACKAGES, columns, agreement(model, windows_NL), text))


def corpus_windows(model: ResolvedModel, corpus: Path, count: int) -> np.ndarray:
    """windows_NL: the first tokens of as many documents, taken evenly from those that are long enough."""
    tokenizer = load_tokenizer(model)
    long_ones = [record["text"] for record in documents(corpus) if len(record["text"]) > 6 * WINDOW]
    step = max(1, len(long_ones) // (2 * count))
    found = (tokenizer.encode(text[: 12 * WINDOW]).ids[:WINDOW] for text in long_ones[::step])
    return np.array([ids for ids in found if len(ids) == WINDOW][:count], dtype=np.int64)


def settings(model: ResolvedModel, what: str, dtype: str = "bfloat16") -> tuple[LadmConfig, dict]:
    """The scorer and the weights of one variant."""
    config = LadmConfig.model_validate({"device": "cuda", "dtype": dtype})
    if what != CALIBRATED:
        return config, {}
    chosen = load_calibration(None, model.reference, model.digest, WINDOW)
    return chosen.applied(config), chosen.weights


def work(model: ResolvedModel, ids_BL: np.ndarray, what: str) -> Callable[[], object]:
    """What one variant does with the batch, with its model loaded."""
    if what in (PLAIN, COMPILED):
        options = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
        plain = AutoModel.from_pretrained(model.path, **options).eval().to("cuda")
        if what == COMPILED:
            compile_parts(plain)

        def forward() -> object:
            with torch.inference_mode():
                return plain(input_ids=torch.as_tensor(ids_BL).to("cuda"), use_cache=False)[0][:, -1].cpu()

        return forward
    config, weights = settings(model, what)
    calculator = load_calculator(model.path, config)
    return lambda: score_windows(calculator, config, ids_BL, weights)


def costs(model: ResolvedModel, windows_NL: np.ndarray, length: int, rounds: int) -> list[list[str]]:
    """The first table's lines for windows of one length."""
    ids_BL = np.resize(windows_NL.reshape(-1), (max(1, BATCH_TOKENS // length), length))
    works = {what: work(model, ids_BL, what) for what in VARIANTS}
    weight_bytes = sum(2 * one.numel() for one in AutoModel.from_pretrained(model.path).parameters())
    peaks = {}
    for what, one in works.items():
        one()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        one()
        peaks[what] = torch.cuda.max_memory_allocated() - before + weight_bytes
    walls: dict[str, list[float]] = {what: [] for what in VARIANTS}
    for number in range(rounds):
        turn = number % len(VARIANTS)
        for what in (*VARIANTS[turn:], *VARIANTS[:turn]):
            torch.cuda.synchronize()
            started = time.perf_counter()
            works[what]()
            torch.cuda.synchronize()
            walls[what].append(time.perf_counter() - started)
    rows = []
    for what in VARIANTS:
        ratio = statistics.median(one / plain for one, plain in zip(walls[what], walls[PLAIN], strict=True))
        wall = statistics.median(walls[what])
        rows.append(
            [
                f"{length:,}",
                what,
                f"{wall * 1000:.0f} ms",
                f"{ids_BL.size / wall:,.0f}",
                f"{ratio:.2f}",
                f"{peaks[what] / 2**20:,.0f} MiB",
                f"{peaks[what] / peaks[PLAIN]:.2f}",
            ]
        )
        print("  ".join(rows[-1]), flush=True)
    return rows


def agreement(model: ResolvedModel, windows_NL: np.ndarray) -> list[list[str]]:
    """The second table's lines."""
    found: dict[str, dict[str, list[float]]] = {}
    for dtype in ("float32", "bfloat16"):
        for what in (PUBLISHED, CALIBRATED):
            config, weights = settings(model, what, dtype)
            scores = score_windows(load_calculator(model.path, config), config, windows_NL, weights)
            if what == PUBLISHED:
                found.setdefault("published, all layers", {})[dtype] = [score.cds for score in scores]
            for name in weights.names:
                found.setdefault(f"calibrated {name}", {})[dtype] = [score.by_profile[name] for score in scores]
    rows = []
    for name, of_dtype in found.items():
        exact, half = (pd.Series(of_dtype[dtype]) for dtype in ("float32", "bfloat16"))
        best = len(exact) // 4
        same = len(set(exact.nlargest(best).index) & set(half.nlargest(best).index))
        difference = ((half - exact) / exact).abs().median()
        spearman = exact.rank().corr(half.rank())
        rows.append([name, f"{spearman:.4f}", f"{same / best:.0%}", f"{difference:.2%}"])
    return rows


if __name__ == "__main__":
    main()
