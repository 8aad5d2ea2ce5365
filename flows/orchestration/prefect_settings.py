"""Whether Prefect can be imported under the user's settings of it, which it reads while it is imported.

They stand in the environment, `.env`, `prefect.toml`, `pyproject.toml` and a file of profiles. What Prefect cannot read
there ends its import with an error that names none of these.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tomllib
import typing
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladm.tasks.errors import UserError
from ladm.tasks.printable import printable
from ladm.tasks.redact import one_line

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

NOT_SHOWN = ("KEY", "AUTH", "PASSWORD", "SECRET", "TOKEN", "HEADERS", "CONNECTION_URL")
"""The value of a setting with one of these in its name is a secret, or holds one."""


def are_given() -> bool:
    """Whether there is a setting of the user's that Prefect would read; to be asked before we set our own."""
    return any(name.upper().startswith("PREFECT_") for name in os.environ) or any(map(os.path.exists, _files()))


def check_prefect_settings() -> None:
    """Import Prefect.

    Raises:
        UserError: One of its settings cannot be read. The line names the variable, or the file and the key.
    """
    if "prefect.context" in sys.modules:
        return
    from pydantic import ValidationError  # noqa: PLC0415

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # Prefect prints what it raises, too
            import prefect.context  # noqa: F401, PLC0415
    except ValidationError as error:
        raise UserError(_explained(error)) from None
    except (ValueError, TypeError, AttributeError, LookupError, OSError, RuntimeError) as error:
        raise UserError(_unreadable(error)) from None
    if said.getvalue():
        print(said.getvalue(), end="", file=sys.stderr)


def _explained(error: ValidationError) -> str:
    """The first complaint that is about a value."""
    complaints = error.errors(include_url=False)
    complaint: Any = next((one for one in complaints if one["type"] != "default_factory_not_called"), complaints[0])
    message = one_line(str(complaint["msg"]).removeprefix("Value error, "))
    field = str(complaint["loc"][0]) if complaint["loc"] else ""
    for model, header in _models():
        if field and model.__name__ == error.title and (name := _field(model, field)):
            place = _place(model, header, name)
            secret = any(word in f"{place} {name}".upper() for word in NOT_SHOWN)
            given = "" if secret else f", not {printable(one_line(repr(complaint['input'])), 100)}"
            return f"{place}: {message[:1].lower()}{message[1:]}{given}; correct it, or leave this setting out"
    named = field or _no_address()
    return f"{named}: {message}; correct it, or leave this setting out" if named else f"Prefect's settings: {message}"


def _no_address() -> str | None:
    """The variable that holds what begins like an address and is none, of which Prefect's complaint names no field."""
    for name, value in os.environ.items():
        if name.upper().startswith("PREFECT_") and "://" in value:
            try:
                _ = urllib.parse.urlsplit(value).port
            except ValueError:
                return name
    return None


def _unreadable(error: Exception) -> str:
    """What is wrong where no value was even looked at."""
    for path in _files():
        try:
            tomllib.loads(path.read_text(encoding="utf-8")) if path.suffix == ".toml" else path.read_text("utf-8")
        except OSError as problem:
            if os.path.lexists(path):
                return f"{path}: Prefect reads its settings there and cannot ({problem.strerror}); correct or move it"
        except ValueError as problem:
            kind = "TOML" if isinstance(problem, tomllib.TOMLDecodeError) else "UTF-8"
            return f"{path}: Prefect reads its settings there, and it is not {kind} ({problem}); correct or move it"
    words = str(error).split('"')
    if str(error).startswith("error parsing value for field") and len(words) > 1:
        for model, header in _models():
            if (name := _field(model, words[1])) and (place := _place(model, header, name, sure=False)):
                return f"{place}: Prefect reads JSON there, and it is none; correct it, or leave this setting out"
    found = [str(path) for path in _files() if os.path.exists(path)]  # noqa: PTH110
    where = ", ".join([*found, "the environment's PREFECT_ variables"])
    return one_line(f"Prefect's settings cannot be read ({type(error).__name__}: {error}); they stand in: {where}")


def _models() -> Iterator[tuple[type[BaseModel], tuple[str, ...]]]:
    """Prefect's classes of settings, each with the names of the TOML tables around it."""
    from prefect.settings import Settings  # noqa: PLC0415
    from prefect.settings.base import PrefectBaseSettings  # noqa: PLC0415

    waiting: list[tuple[type[Any], tuple[str, ...]]] = [(Settings, ())]
    while waiting:
        model, header = waiting.pop(0)
        yield model, header
        for name, field in model.model_fields.items():
            kinds = (field.annotation, *typing.get_args(field.annotation))
            inner = [one for one in kinds if isinstance(one, type) and issubclass(one, PrefectBaseSettings)]
            waiting += [(one, (*header, name)) for one in inner]


def _field(model: type[BaseModel], said: str) -> str | None:
    """The field that a complaint means by its name or by one of its variables."""
    return next((name for name in model.model_fields if said.upper() in (name.upper(), *_variables(model, name))), None)


def _variables(model: type[BaseModel], name: str) -> list[str]:
    """The environment variables that set a field."""
    alias = model.model_fields[name].validation_alias
    choices = [alias] if isinstance(alias, str) else getattr(alias, "choices", [])
    prefix = str(model.model_config.get("env_prefix") or "")
    return list(dict.fromkeys([*(one.upper() for one in choices if isinstance(one, str)), f"{prefix}{name}".upper()]))


@typing.overload
def _place(model: type[BaseModel], header: tuple[str, ...], name: str) -> str: ...
@typing.overload
def _place(model: type[BaseModel], header: tuple[str, ...], name: str, *, sure: bool) -> str | None: ...
def _place(model: type[BaseModel], header: tuple[str, ...], name: str, *, sure: bool = True) -> str | None:
    """Where a field is set, in Prefect's order: its variable, or a file and a key; without `sure`, none if nowhere."""
    variables = _variables(model, name)
    for variable, value in os.environ.items():
        if variable.upper() in variables and value:
            return variable
    for path in _files():
        keys: list[tuple[str, ...]] = [(*header, name)]
        if path.name == "pyproject.toml":
            keys = [("tool", "prefect", *header, name)]
        elif path.name == ".env":
            keys = [(variable,) for variable in variables]
        elif path.name != "prefect.toml":
            keys = [("profiles", profile, key) for profile in _read(path).get("profiles", {}) for key in variables]
        for key in keys:
            if _has(_read(path), key):
                return f"{path}: {'.'.join(key)}"
    return variables[0] if sure else None


def _files() -> list[Path]:
    """The files in which Prefect looks, those that are there or not."""
    files = [Path(".env"), Path("prefect.toml"), Path("pyproject.toml")]
    profiles = os.environ.get("PREFECT_PROFILES_PATH") or next(
        (str(value) for path in files if (value := _profiles_named_in(path))), None
    )
    with contextlib.suppress(RuntimeError):  # a user without a home
        home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
        return [*files, Path(profiles) if profiles else home / "profiles.toml"]
    return files


def _profiles_named_in(path: Path) -> Any:
    given = _read(path)
    if path.name == "pyproject.toml":
        tool = given.get("tool")
        given = tool.get("prefect", {}) if isinstance(tool, dict) else {}
    return given.get("PREFECT_PROFILES_PATH" if path.name == ".env" else "profiles_path")


def _read(path: Path) -> dict[str, Any]:
    """What a file of settings says; nothing where it cannot be read."""
    try:
        if path.name == ".env":
            import dotenv  # noqa: PLC0415

            return {name.upper(): value for name, value in dotenv.dotenv_values(path).items()}
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _has(given: Any, key: tuple[str, ...]) -> bool:
    for part in key:
        if not isinstance(given, dict) or part not in given:
            return False
        given = given[part]
    return True
