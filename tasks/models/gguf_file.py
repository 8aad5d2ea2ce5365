"""From a GGUF file to a Hugging Face folder in the cache: once.

`transformers` reads GGUF, slowly: it parses the file's metadata three times over and dequantises every tensor in
numpy. So a file is converted once, to float32 safetensors under `models/<its sha256>/`, and loads in a second from
then on. The conversion runs in a process of its own (`python -m THIS_MODULE FILE FOLDER`): the caller imports neither
torch nor transformers, gets no progress bars on its stderr, and keeps none of the memory.

A folder is made under a temporary name and then renamed, which is the commit: processes that convert the same file at
once each make the same folder, the first rename wins, and no half-made one is ever used.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladm.tasks.errors import ModelError
from ladm.tasks.models.cache import cache_root, file_sha256, read_json, scratch_name, text_sha256, write_json
from ladm.tasks.redact import one_line

Progress = Callable[[str], None]

RECORD = "ladm-model.json"
RECORD_FORMAT = 1  # raised when a folder converted by an older version must not be used any more
STALE_SECONDS = 86400.0


def converted_folder(gguf_sha256: str) -> Path | None:
    """The folder that a GGUF file was converted to, or None where there is no whole one.

    Whole means that each file its record names is there with the size recorded; nothing is hashed or imported.
    """
    folder = cache_root() / "models" / gguf_sha256
    record = read_json(folder / RECORD)
    if record is None or record.get("format") != RECORD_FORMAT:
        return None
    try:
        whole = all((folder / name).stat().st_size == size for name, (size, _) in record["files"].items())
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return folder if whole else None


@dataclass(frozen=True)
class Converted:
    """What `convert` noted of a folder that it made."""

    gguf_sha256: str
    """Of the file that the folder was made from."""
    files: dict[str, str]
    """Name → sha256 of each file made."""

    def digest(self, part: str) -> str:
        """The content of `part` ("weights" or "tokenizer"), as told by the file that it came from.

        Not by the files made: transformers writes its own version into them, and a GGUF file's scores must have the
        same keys, and its calibration must be found, whatever version converted it.
        """
        return text_sha256(f"{part} of GGUF {self.gguf_sha256}, converted by rules {RECORD_FORMAT}")


def converted_record(folder: Path) -> Converted | None:
    """What was noted of a folder that `convert` made, or None for any other folder."""
    record = read_json(folder / RECORD)
    if record is None or converted_folder(str(record.get("gguf"))) != folder:
        return None
    return Converted(str(record["gguf"]), {name: sha256 for name, (_, sha256) in record["files"].items()})


def convert(gguf: Path, gguf_sha256: str, on_progress: Progress) -> Path:
    """The Hugging Face folder of a GGUF file: float32 safetensors, config and tokenizer.

    Args:
        gguf: the file.
        gguf_sha256: the sha256 of its bytes, which names the folder.
        on_progress: told, in a few words, what takes the time.

    Raises:
        ModelError: the file is damaged, or of an architecture that `transformers` does not read from GGUF.
        OSError: the cache cannot be written.
    """
    if folder := converted_folder(gguf_sha256):
        return folder
    models = cache_root() / "models"
    models.mkdir(parents=True, exist_ok=True)
    _sweep(models)
    scratch, final = scratch_name(models), models / gguf_sha256
    on_progress(f"converting {gguf.name} to safetensors")
    try:
        scratch.mkdir()
        _convert_in_child(gguf, scratch)
        for made in scratch.iterdir():  # safetensors writes for its owner alone; an image may run as another user
            made.chmod((scratch / "config.json").stat().st_mode)
        files = {f.name: [f.stat().st_size, file_sha256(f, remember=False)] for f in sorted(scratch.iterdir())}
        write_json(scratch / RECORD, {"format": RECORD_FORMAT, "gguf": gguf_sha256, "files": files})
        _commit(scratch, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    folder = converted_folder(gguf_sha256)
    assert folder is not None, f"{final} was just made and is not whole"
    return folder


def _commit(scratch: Path, final: Path) -> None:
    """Renames the folder just made to its name, unless another process has put a whole one there first."""
    for _ in range(3):
        try:
            scratch.rename(final)
        except OSError:
            if not final.exists():
                raise
            if converted_folder(final.name):
                return
            damaged = scratch_name(final.parent)
            with contextlib.suppress(FileNotFoundError):
                final.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        else:
            return


def _sweep(models: Path) -> None:
    """Deletes what processes that were killed left behind, once it is a day old."""
    for left in models.glob(".tmp-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _convert_in_child(gguf: Path, into: Path) -> None:
    """Runs this module on one file in another interpreter."""
    package_parent = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    env = {**os.environ, **quiet, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", "-m", "ladm.tasks.models.gguf_file", str(gguf.resolve()), str(into)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, check=False)
    if done.returncode < 0:
        raise ModelError(
            f"scorer.model: converting {gguf.name} was killed by signal {-done.returncode};"
            " its float32 weights may not fit in memory"
        )
    if done.returncode > 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise ModelError(f"scorer.model: {gguf.name} could not be converted: {one_line(lines[-1])}")


def _convert_here(gguf: Path, into: Path) -> None:
    """Reads a GGUF file with `transformers`, dequantised to float32, and saves it as a Hugging Face folder."""
    import gguf as gguf_package  # noqa: PLC0415 (only the child process pays for these imports)
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    # transformers parses the file afresh for the config, the tokenizer and the weights (4 s each at 49k tokens) and
    # builds the same table of tensor names once for every submodule; both are functions of their arguments.
    package: Any = gguf_package
    package.GGUFReader = functools.cache(package.GGUFReader)
    package.get_tensor_name_map = functools.cache(package.get_tensor_name_map)

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    options: dict[str, Any] = {"dtype": torch.float32}
    if hasattr(transformers, "GgufConfig"):  # newer versions keep some architectures' weights packed unless told
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, **options)
    if quantizer := getattr(model, "hf_quantizer", None):  # by now the weights are plain, and may be saved as such
        quantizer.remove_quantization_config(model)
    packed = [name for name, weight in model.named_parameters() if weight.dtype != torch.float32]
    if packed:
        raise TypeError(f"transformers {transformers.__version__} did not dequantise {packed[0]}")
    model.save_pretrained(into)
    if "tokenizer.ggml.model" in package.GGUFReader(str(gguf)).fields:
        transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(into)


if __name__ == "__main__":
    try:
        _convert_here(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # the parent makes a ModelError of the last line
        sys.exit(f"{type(error).__name__}: {one_line(str(error))}")
