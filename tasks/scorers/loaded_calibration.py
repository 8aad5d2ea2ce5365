"""Calibrations as they are found: the shipped ones, by model and window length, and files of `ladm evaluate`."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from ladm.tasks.errors import ConfigError
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.ladm import LadmConfig


def fitting_calibration(config: LadmConfig, model_digest: str, window_length: int) -> Calibration | None:
    """The calibration that is shipped for a model and a window, if it was made with what the configuration sets."""
    shipped = _shipped(model_digest)
    if window_length not in shipped:
        return None
    calibration = _checked(*shipped[window_length])
    try:
        calibration.stated(config)
    except ConfigError:  # it sets something otherwise
        return None
    return calibration


@lru_cache(maxsize=4)
def nearest_calibration(model_digest: str, window_length: int) -> tuple[Calibration, str]:
    """The shipped calibration of the window length nearest by ratio, and its sha256.

    One of the model, or, where none is shipped for it, of another model.
    """
    shipped = list((_shipped(model_digest) or _shipped()).values())
    name, content = min(shipped, key=lambda one: abs(math.log(one[1]["window_length"] / window_length)))
    return _checked(name, content), hashlib.sha256(orjson.dumps(content)).hexdigest()


def _shipped(model_digest: str | None = None) -> dict[int, tuple[str, Any]]:
    """The calibrations that are shipped for a model, or any, by their window length: file and content, not yet checked.

    Only the one that is taken is checked: to check all of them would take every start three times as long.
    """
    folder = files("ladm.tasks.scorers") / "calibrations"
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    loaded = [(name, orjson.loads((folder / name).read_bytes())) for name in names if name.endswith(".json")]
    wanted = [one for one in loaded if model_digest in (None, one[1]["model_digest"])]
    return {content["window_length"]: (name, content) for name, content in wanted}


def load_calibration(path: str | None, model: str, model_digest: str, window_length: int | None) -> Calibration:
    """The calibration at `path`, or, without a path, the one shipped for this model and window length.

    `window_length` None takes the calibration's own; without a path, that must be the only one shipped for the model.

    Raises:
        ConfigError: there is none, it is damaged, or it was made for another model or window length.
    """
    if path is None:
        for_model = _shipped(model_digest)
        if window_length is None and len(for_model) == 1:
            return _checked(*next(iter(for_model.values())))
        if window_length in for_model:
            return _checked(*for_model[window_length])
        lengths = f"windows of {', '.join(map(str, sorted(for_model)))} tokens" if for_model else "no window length"
        raise ConfigError(
            f"scorer.calibration: for {model!r} one is shipped for {lengths}, and none for {window_length}; "
            "make one with `ladm evaluate` and give its path"
        )
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"scorer.calibration: cannot read {path!r} ({error.strerror}); give a calibration.json of `ladm evaluate`"
        ) from None
    calibration = _parsed(path, content)
    if calibration.model_digest != model_digest:
        raise ConfigError(
            f"scorer.calibration: {path!r} was made for the model {calibration.model!r} with digest "
            f"{calibration.model_digest[:12]}…, not for {model!r} ({model_digest[:12]}…); run `ladm evaluate` with it"
        )
    if window_length is not None and calibration.window_length != window_length:
        raise ConfigError(
            f"scorer.calibration: {path!r} was made for windows of {calibration.window_length} tokens, and "
            f"window.length is {window_length}; run `ladm evaluate` with that length"
        )
    return calibration


def _parsed(name: str, content: bytes) -> Calibration:
    try:
        return _checked(name, orjson.loads(content))
    except orjson.JSONDecodeError:
        raise _no_calibration(name, "not JSON") from None


def _checked(name: str, content: Any) -> Calibration:
    try:
        return Calibration.model_validate(content)
    except ValidationError as error:
        raise _no_calibration(name, error.errors()[0]["msg"]) from None


def _no_calibration(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"scorer.calibration: {name!r} is not a calibration ({reason}); give a calibration.json of `ladm evaluate`"
    )
