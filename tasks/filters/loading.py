"""Makes the filters that a configuration names: found, imported, made with their arguments, and told from others.

A filter's *version* is part of the key of what it made: of a built-in its own, of datatrove that of the package, and of
whatever is imported the sha256 of the files that hold it. What such a file imports itself is not looked at.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson

from ladm.tasks import plugins
from ladm.tasks.errors import ConfigError
from ladm.tasks.filters.config import FilterConfig
from ladm.tasks.filters.repetition import VERSION, too_repetitive
from ladm.tasks.printable import printable
from ladm.tasks.storage.file_systems import reason_of

Check = Callable[[str, str, str | None], object]
"""From a document's id, text and metadata as JSON: True where it stays, or the same with a reason."""

LONGEST_ERROR = 300
_importing = threading.Lock()
_asking_datatrove = threading.Lock()
"""Its tokenizers are one for all filters, and not made for several threads."""
_imported: dict[str, str] = {}
"""Module → sha256 of its file when this process imported it."""


@dataclass(frozen=True)
class Filter:
    """A filter that is ready."""

    name: str
    field: str
    """Where it stands in the configuration."""
    version: str
    check: Check


def load_filters(filters: Sequence[FilterConfig]) -> list[Filter]:
    """The filters of a configuration, each made anew.

    What they name is looked for where Python looks, and at last in the folder that the process was started in.

    Raises:
        ConfigError: One of them cannot be imported, is not there, or does not take its arguments.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    with _importing:  # two threads that do this at once disturb each other
        importlib.invalidate_caches()
    return [_load(one, f"filters[{number}]") for number, one in enumerate(filters)]


def filters_of_job(config: Sequence[dict[str, Any]], versions: Sequence[str]) -> list[Filter]:
    """The filters of a job, which must be the same here as where the run was planned.

    Raises:
        ConfigError: As `load_filters`; or another version of one is found here.
    """
    filters = load_filters([FilterConfig.model_validate(one) for one in config])
    for one, version in zip(filters, versions, strict=True):
        if one.version != version:
            raise ConfigError(
                f"{one.field}: {one.name} is not what it was when the run began ({version}, here {one.version}); "
                "do not change it during a run, and give all machines the same"
            )
    return filters


def _load(config: FilterConfig, field: str) -> Filter:
    if config.datatrove is not None:
        return _of_datatrove(config, config.datatrove, field)
    if config.plugin is not None:
        return _of_plugin(config, config.plugin, field)
    if config.function is not None:
        return _of_function(config, config.function, field)
    thresholds = config.repetition
    assert thresholds is not None

    def check(_: str, text: str, __: str | None) -> object:
        reason = too_repetitive(text, thresholds)
        return (False, reason) if reason else True

    return Filter(config.called, field, f"repetition {VERSION}", check)


def _of_function(config: FilterConfig, path: str, field: str) -> Filter:
    module, colon, name = path.partition(":")
    if not (colon and module and name):
        raise ConfigError(f"{field}: {path!r} is not of the form module:function")
    function, version = _imported_from(module, name, field)
    if not callable(function):
        raise ConfigError(f"{field}: {path} is not a function but of type {type(function).__name__}; name a function")
    if wrong := _does_not_take(function, "", {}):
        raise ConfigError(f"{field}: {path} cannot be called with (text, meta): {wrong}; give it these two parameters")

    def check(_: str, text: str, meta: str | None) -> object:
        return function(text, orjson.loads(meta) if meta else {})

    return Filter(config.called, field, version, check)


def _of_plugin(config: FilterConfig, name: str, field: str) -> Filter:
    plugin = plugins.declared(plugins.FILTERS)[name]
    module, _, called = plugin.place.partition(":")
    factory, version = _imported_from(module, called, field)
    if not callable(factory):
        raise ConfigError(f"{field}: {plugin.place} makes no filter: it is no function; mend {plugin.distribution}")
    if wrong := _does_not_take(factory, **config.arguments):
        raise ConfigError(f"{field}.arguments: {name} does not take them: {wrong}")
    try:
        keeps = factory(**config.arguments)
    except Exception as error:
        raise ConfigError(f"{field}: {name} cannot be made ({in_words(error)}); change its arguments") from None
    if not callable(keeps) or _does_not_take(keeps, "", {}):
        raise ConfigError(f"{field}: {plugin.place} makes nothing that takes (text, meta); mend {plugin.distribution}")

    def check(_: str, text: str, meta: str | None) -> object:
        return keeps(text, orjson.loads(meta) if meta else {})

    return Filter(config.called, field, f"{plugin.distribution}, {version}", check)


def _of_datatrove(config: FilterConfig, path: str, field: str) -> Filter:
    if importlib.util.find_spec("datatrove") is None:
        raise ConfigError(f"{field}: the package datatrove is not installed; pip install 'ladm[filters]'")
    module, dot, name = path.rpartition(".")
    if not dot:
        raise ConfigError(f"{field}: {path!r} is not of the form package.module.Class")
    made_by, version = _imported_from(module, name, field)
    from datatrove.data import Document  # noqa: PLC0415
    from datatrove.pipeline.filters.base_filter import BaseFilter  # noqa: PLC0415

    if not (inspect.isclass(made_by) and issubclass(made_by, BaseFilter)):
        raise ConfigError(f"{field}: {path} is not a filter of datatrove; name a class that is derived from BaseFilter")
    made_with: Any = made_by.__init__
    if wrong := _does_not_take(made_with, None, **config.arguments):
        known = ", ".join(list(inspect.signature(made_with).parameters)[1:])
        raise ConfigError(f"{field}.arguments: {name} does not take them: {wrong}; it takes {known}")
    try:
        made: Any = made_by(**config.arguments)
    except Exception as error:
        raise ConfigError(f"{field}: {name} cannot be made ({in_words(error)}); change its arguments") from None

    def check(doc_id: str, text: str, meta: str | None) -> object:
        document = Document(text=text, id=doc_id, metadata=orjson.loads(meta) if meta else {})
        with _asking_datatrove:
            return made.filter(document)

    return Filter(config.called, field, f"datatrove {importlib.metadata.version('datatrove')}, {version}", check)


def try_out(one: Filter) -> None:
    """Find out whether a filter lacks a package that it imports only when it is asked.

    Raises:
        ConfigError: It does.
    """
    try:
        one.check("", "A text of two sentences. It is here to try the filter on.", None)
    except ImportError as error:
        raise lacks(one, error) from None
    except Exception:
        return  # of this text; what it says of documents is seen there


def lacks(one: Filter, error: ImportError) -> ConfigError:
    """What is told of a filter that cannot import what it needs."""
    return ConfigError(f"{one.field}: {one.name} lacks a package ({in_words(error)}); install it")


def in_words(error: BaseException) -> str:
    """An error on one line, without secrets."""
    return printable(f"{type(error).__name__}: {reason_of(error)}", LONGEST_ERROR)


def _does_not_take(called: Callable[..., Any], /, *given: Any, **named: Any) -> str:
    """Why something cannot be called so; nothing if it can, or if that cannot be known."""
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        return str(error)
    return ""


# -- importing -------------------------------------------------------------------------------------------------


def _imported_from(module: str, name: str, field: str) -> tuple[Any, str]:
    """What a module calls `name`, and what tells it from other versions of itself.

    A module that was changed since this process imported it is read again.
    """
    with _importing:
        try:
            found = importlib.import_module(module)
            value = _attribute(found, name, field)
            home = sys.modules.get(getattr(value, "__module__", None) or module, found)
            digests = {one: _digest(one) for one in dict.fromkeys((home, found))}
            if any(_imported.setdefault(one.__name__, digest) != digest for one, digest in digests.items()):
                for one, digest in digests.items():
                    _imported[one.__name__] = digest
                    importlib.reload(one)
                value = _attribute(sys.modules[module], name, field)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"{field}: cannot import {module!r} ({in_words(error)}); "
                "mend it, install it, or start ladm in the folder where it lies"
            ) from None
    return value, f"sha256 {' '.join(dict.fromkeys(digests.values()))}"


def _attribute(module: ModuleType, name: str, field: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            close = difflib.get_close_matches(part, [known for known in dir(value) if known[0] != "_"], n=1)
            hint = f"did you mean {close[0]!r}?" if close else "name one that is there"
            raise ConfigError(f"{field}: {module.__name__} has no {name!r}; {hint}")
        value = getattr(value, part)
    return value


def _digest(module: ModuleType) -> str:
    """Sha256 of a module's file; of one that has none, the version of Python, which it belongs to."""
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else f"python {sys.version.split()[0]}"
