"""Benchmark: scoring against one plain forward pass of the same model on the same window.

The competitor is transformers' own forward pass (`attn_implementation="sdpa"`, no head, no cache), the floor of any
score that needs the model's attention. Candidates: the published formula over all layers, exact, and the shipped
calibration of the length, in float32 as the competitor and, on processors that multiply in it, in bfloat16. All of them
run by turns in one process; peak memory is that of a process of its own for each.

    python benchmarks/scoring.py [--lengths 2048 4096 8192] [--rounds 5]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from importlib.resources import files

import numpy as np
import torch
import zstandard
from measure import memory_of_this
from results import write_section
from transformers import AutoModel

from ladm.tasks.models.resolve import ResolvedModel, resolve_model
from ladm.tasks.scorers.calculator import load_calculator
from ladm.tasks.scorers.calibration import Calibration, Weights
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.loaded_calibration import load_calibration
from ladm.tasks.scorers.processor import multiplies_bfloat16
from ladm.tasks.scorers.window_scores import score_windows
from ladm.tasks.tokenizing.tokenizer import load_tokenizer

PLAIN = "plain forward pass (transformers, sdpa)"
PUBLISHED = "published formula, all layers, exact"
CALIBRATED = "calibrated: dependency and order"
TOO_SHORT = 2304
"""Windows in which the published strides find no query span of 128 tokens; theirs are of 64."""
IN_BFLOAT16 = ", bfloat16"
VARIANTS = (
    *(PLAIN, PUBLISHED, CALIBRATED),
    *((PUBLISHED + IN_BFLOAT16, CALIBRATED + IN_BFLOAT16) if multiplies_bfloat16() else ()),
)
"""In float32 but for those that say so; bfloat16 where the processor multiplies in it, as `dtype: auto` does."""


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096, 8192], metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="by turns; the medians are taken")
    options = parser.parse_args()
    model = resolve_model("embedded", print)
    ids_L = sample_tokens(model, max(options.lengths))
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for length in options.lengths:
        times = timed(model, ids_L[None, :length], options.rounds)
        plain_wall, plain_cpu = zip(*times[PLAIN], strict=True)
        peaks = {}
        for variant in VARIANTS:
            with spawn.Pool(1) as pool:  # a fresh process: its peak is this variant's alone
                peaks[variant] = pool.apply(peak_memory, (model, ids_L[None, :length], variant))
        for variant in VARIANTS:
            wall, cpu = zip(*times[variant], strict=True)
            of_wall = statistics.median(one / other for one, other in zip(wall, plain_wall, strict=True))
            of_cpu = statistics.median(one / other for one, other in zip(cpu, plain_cpu, strict=True))
            rows.append(
                [
                    f"{length:,}",
                    variant,
                    f"{statistics.median(wall):.2f} s",
                    f"{statistics.median(cpu):.2f} s",
                    f"{of_wall:.2f}",
                    f"{of_cpu:.2f}",
                    f"{peaks[variant] / 2**20:,.0f} MiB",
                    f"{peaks[variant] / peaks[PLAIN]:.2f}",
                ]
            )
            print("  ".join(rows[-1]), flush=True)
    columns = ["tokens", "what", "wall", "CPU", "wall ÷ plain", "CPU ÷ plain", "peak memory", "÷ plain"]
    lasts = {calibration(model, length).last_layer for length in options.lengths}
    text = (
        "SmolLM2-135M on the CPU, in float32 where nothing else is said, one window of the bundled sample's text, "
        f"{options.rounds} rounds by turns after one to warm up; ratios are medians of each round's own, against the "
        f"plain pass in float32. Calibrated scoring ends after layer {' or '.join(map(str, sorted(lasts)))} of 30."
    )
    command = f"python benchmarks/scoring.py --lengths {' '.join(map(str, options.lengths))} --rounds {options.rounds}"
    print(write_section("Scoring", command, ["ladm", "torch", "transformers"], columns, rows, text))


def sample_tokens(model: ResolvedModel, length: int) -> np.ndarray:
    """ids_L: the first tokens of the bundled sample's books."""
    raw = (files("ladm.flows.sample") / "Books.jsonl.zst").read_bytes()
    text = zstandard.ZstdDecompressor().decompressobj().decompress(raw).decode()
    ids = load_tokenizer(model).encode(text[: 12 * length]).ids
    return np.array(ids[:length], dtype=np.int64)


def calibration(model: ResolvedModel, length: int) -> Calibration:
    """The one shipped for windows of the length."""
    return load_calibration(None, model.reference, model.digest, length)


def work(model: ResolvedModel, ids_BL: np.ndarray, variant: str) -> Callable[[], object]:
    """What one variant does with the window, with its model loaded."""
    if variant == PLAIN:
        plain = AutoModel.from_pretrained(model.path, dtype=torch.float32, attn_implementation="sdpa").eval()

        def forward() -> object:
            with torch.inference_mode():
                return plain(input_ids=torch.as_tensor(ids_BL), use_cache=False)

        return forward
    dtype = "bfloat16" if variant.endswith(IN_BFLOAT16) else "float32"
    config, weights = LadmConfig(device="cpu", dtype=dtype), Weights()
    if variant.startswith(CALIBRATED):
        chosen = calibration(model, ids_BL.shape[1])
        config, weights = chosen.applied(config), chosen.weights
    elif ids_BL.shape[1] <= TOO_SHORT:
        config = config.model_copy(update={"span": 64})
    calculator = load_calculator(model.path, config)
    return lambda: score_windows(calculator, config, ids_BL, weights)


def timed(model: ResolvedModel, ids_BL: np.ndarray, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds (wall, CPU) of each variant in each round; in each round another one begins."""
    works = {variant: work(model, ids_BL, variant) for variant in VARIANTS}
    for one in works.values():
        one()
    times: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for number in range(rounds):
        turn = number % len(VARIANTS)
        for variant in (*VARIANTS[turn:], *VARIANTS[:turn]):
            wall, cpu = time.perf_counter(), time.process_time()
            works[variant]()
            times[variant].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def peak_memory(model: ResolvedModel, ids_BL: np.ndarray, variant: str) -> int:
    """Bytes: the most that a process held which loaded the model and did one variant's work twice."""
    one = work(model, ids_BL, variant)
    one()
    one()
    return memory_of_this("VmHWM")


if __name__ == "__main__":
    main()
