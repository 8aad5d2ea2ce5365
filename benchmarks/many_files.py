"""Benchmark: thousands of files of one document each, beside an earlier version of ladm: cold, warm, one file changed.

Each run is the command `ladm run` in a process of its own, from its start to its end, by turns on both trees, with a
small random model; the earlier tree is a checkout whose packages lie at its top (`flows`, `tasks`), such as a6abf3d.
The same documents in a hundredth of the files are run too, to see what the number of files costs in memory.

    python benchmarks/many_files.py --model FOLDER [--files 2000] [--earlier CHECKOUT]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from corpus import made_up_texts
from measure import Answer, call, cells
from results import write_section

NOW, EARLIER = "this version", "the earlier version"


def main() -> None:
    """Run the benchmark and write its table."""
    if sys.argv[1:2] == ["--run"]:
        sys.exit(_command(sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a small model with a tokenizer")
    parser.add_argument("--files", type=int, default=2_000, metavar="N")
    parser.add_argument("--earlier", type=Path, metavar="CHECKOUT")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ladm-many-files-") as name:
        rows = measured(Path(name), options.model, options.files, options.earlier)
    columns = ["version", "run", "wall", "CPU", "peak memory", "CPU, of cold", "files in the store"]
    text = (
        f"{options.files:,} source files of one document of 700 words each, windows of 1,024 tokens, all stages to one "
        "export. Warm: nothing changed. Changed: one document was written anew. Few files: the same documents in a "
        "hundredth of the files."
    )
    command = f"python benchmarks/many_files.py --model FOLDER --files {options.files}"
    name = f"Many small files, {options.files:,}"
    print(write_section(name, command, ["ladm", "prefect", "torch"], columns, rows, text))


def measured(folder: Path, model: str, files: int, earlier: Path | None) -> list[list[str]]:
    """The table's lines."""
    texts = made_up_texts()
    paths = [folder / "sources" / f"{number // 1000:03d}" / f"{number:06d}.jsonl" for number in range(files)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, next(texts), number)
    trees = {NOW: None, **({EARLIER: earlier} if earlier else {})}
    rows, cold = [], dict.fromkeys(trees, 0.0)
    few = folder / "few"
    few.mkdir()
    for first in range(0, files, 100):
        (few / f"{first:06d}.jsonl").write_text("".join(path.read_text() for path in paths[first : first + 100]))
    answer = run(few, folder / "store-few", model, None)
    rows.append([NOW, "cold, few files", *cells(answer.whole), "", f"{_stored(folder / 'store-few'):,}"])
    print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    for number, what in enumerate(("cold", "warm", "one file changed")):
        if what == "one file changed":
            _write(paths[files // 2], next(texts), files // 2)
        for version in list(trees)[:: 1 if number % 2 == 0 else -1]:
            store = folder / f"store-{list(trees).index(version)}"
            answer = run(folder / "sources", store, model, trees[version])
            if what == "cold":
                cold[version] = answer.whole.cpu
            share = f"{answer.whole.cpu / cold[version]:.1%}"
            rows.append([version, what, *cells(answer.whole), share, f"{_stored(store):,}"])
            print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _stored(store: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(store))


def _write(path: Path, text: str, number: int) -> None:
    path.write_text(json.dumps({"text": text, "meta": {"set": f"d{number % 4}"}}) + "\n")


def run(sources: Path, store: Path, model: str, tree: Path | None) -> Answer:
    """One `ladm run`, of this version or of an earlier tree."""
    settings = {
        "sources": f"[{{uri: {sources}, domain: meta.set}}]",
        "scorer.model": model,
        "scorer.span": 32,
        "scorer.d_afs": 4,
        "scorer.d_cds": 4,
        "scorer.layers": "all",
        "window.length": 1024,
        "window.take": "first",
        "select.budget_tokens": 20000,
        "export": "parquet",
    }
    given = [one for name, value in settings.items() for one in ("--set", f"{name}={value}")]
    environment = {"PYTHONPATH": str(tree)} if tree else {}
    return call(__file__, ["--run", "run", "--json", "--store", store, *given], environment)


def _command(arguments: list[str]) -> int:
    if (Path(os.environ.get("PYTHONPATH", "")) / "flows").is_dir():
        from flows.cli import main as ladm  # noqa: PLC0415  (of the earlier tree)
    else:
        from ladm.flows.cli import main as ladm  # noqa: PLC0415
    return int(ladm(arguments))


if __name__ == "__main__":
    main()
