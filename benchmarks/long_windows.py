"""Benchmark: windows of 8K to 128K tokens: what a score costs, and holds in memory, beside a plain forward pass.

The model is a small random Llama of two layers, made for 131,072 positions: its weights and its MLPs weigh next to
nothing, so what is left is attention, which grows with the square of the window. Each variant and length runs in a
process of its own, once; memory is what the process came to hold beyond what it held with the model loaded.

    python benchmarks/long_windows.py [--lengths 8192 32768 131072]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measure import call, memory_of_this, timed
from results import write_section

PLAIN = "plain forward pass (transformers, sdpa)"
EXACT = "published formula, all layers, exact"
SUBSET = "one layer of two, no-std, as a calibration reads it"
VARIANTS = {"plain": PLAIN, "exact": EXACT, "subset": SUBSET}


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 131072], metavar="TOKENS")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "VARIANT", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, variant, length = options.one
        print(json.dumps(done(folder, variant, int(length))))
        return
    with tempfile.TemporaryDirectory(prefix="ladm-long-windows-") as folder:
        make_model(Path(folder), max(options.lengths))
        rows = measured(folder, options.lengths)
    columns = ["tokens", "what", "wall", "CPU", "CPU ÷ plain", "memory", "÷ plain"]
    columns.append(f"memory a token, of that at {min(options.lengths):,}")
    text = (
        "A random Llama of 2 layers, 4 heads, 64 dimensions, in float32 on the CPU; one window of random tokens. "
        "Memory is what was held at most beyond the loaded model. What grows as the window does gives 1.00 in the "
        "last column at every length."
    )
    command = f"python benchmarks/long_windows.py --lengths {' '.join(map(str, options.lengths))}"
    print(write_section("Long windows", command, ["ladm", "torch", "transformers"], columns, rows, text))


def measured(folder: str, lengths: list[int]) -> list[list[str]]:
    """The table's lines."""
    rows: list[list[str]] = []
    first: dict[str, float] = {}
    for length in sorted(lengths):
        plain: dict[str, float] = {}
        for variant, name in VARIANTS.items():
            said = call(__file__, ["--one", folder, variant, length]).said
            plain = plain or said
            a_token = said["memory"] / length
            rows.append(
                [
                    f"{length:,}",
                    name,
                    f"{said['wall']:.1f} s",
                    f"{said['cpu']:.1f} s",
                    f"{said['cpu'] / plain['cpu']:.2f}",
                    f"{said['memory'] / 2**20:,.0f} MiB",
                    f"{said['memory'] / plain['memory']:.2f}",
                    f"{a_token / first.setdefault(variant, a_token):.2f}",
                ]
            )
            print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def make_model(folder: Path, positions: int) -> None:
    """A small random model of long positions."""
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def done(folder: str, variant: str, length: int) -> dict[str, float]:
    """What one variant of one length took: seconds, and bytes beyond the loaded model."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    ids_BL = np.random.default_rng(0).integers(0, 512, (1, length))
    if variant == "plain":
        from transformers import AutoModel  # noqa: PLC0415

        plain = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()

        def work(ids: np.ndarray) -> object:
            with torch.inference_mode():
                return plain(input_ids=torch.as_tensor(ids), use_cache=False)
    else:
        from ladm.tasks.scorers.calculator import load_calculator  # noqa: PLC0415
        from ladm.tasks.scorers.calibration import Weights  # noqa: PLC0415
        from ladm.tasks.scorers.ladm import LadmConfig  # noqa: PLC0415
        from ladm.tasks.scorers.window_scores import score_windows  # noqa: PLC0415

        asked = {"layers": [0], "ablation": "no-std"} if variant == "subset" else {"layers": "all"}
        config = LadmConfig.model_validate({"device": "cpu", "dtype": "float32", **asked})
        calculator = load_calculator(folder, config)

        def work(ids: np.ndarray) -> object:
            return score_windows(calculator, config, ids, Weights())

    work(ids_BL[:, :4096])  # what is made once is not of the window
    before = memory_of_this("VmRSS")
    with timed() as seconds:
        work(ids_BL)
    return {**seconds, "memory": max(1, memory_of_this("VmHWM") - before)}


if __name__ == "__main__":
    main()
