"""The `filters:` section: a list of filters, in the order in which documents go through them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ladm.tasks import plugins
from ladm.tasks.filters.repetition import RepetitionConfig
from ladm.tasks.settings import Settings

BUILT_IN = ("repetition",)
KINDS = (*BUILT_IN, "datatrove", "function", "plugin")
LONGEST_NAME = 60


class FilterConfig(Settings):
    """One entry of `filters`: one of `repetition`, `datatrove`, `function`, `plugin`."""

    name: str | None = Field(default=None, min_length=1, max_length=LONGEST_NAME, pattern=r'^[^\x00-\x1f"]*$')
    """The filter's name in counts and lists. Default: the name of its class or function."""
    repetition: RepetitionConfig | None = None
    """The built-in filter: drop text that repeats itself. `true` for the paper's thresholds."""
    datatrove: str | None = None
    """A filter of datatrove, or a class of yours derived from its `BaseFilter`, as `package.module.Class`."""
    plugin: str | None = Field(default=None, exclude_if=lambda name: name is None)
    """A filter that another package adds, by the name of its entry point in the group `ladm.filters`."""
    arguments: dict[str, Any] = Field(default={})
    """Arguments for the `datatrove` filter's constructor."""
    function: str | None = None
    """A function of yours, as `package.module:function`. It is called with the text and the metadata, and returns
    whether the document stays: `bool` or `(bool, reason)`."""

    @model_validator(mode="before")
    @classmethod
    def _from_shorthand(cls, entry: object) -> object:
        """Let a string stand for an entry, and `{repetition: true}` or nothing in its place for its defaults."""
        if isinstance(entry, str):
            entry = entry_of(entry)
        if isinstance(entry, dict):
            bare = (True, None) if all(entry.get(kind) is None for kind in KINDS) else (True,)
            return {key: {} if key in BUILT_IN and value in bare else value for key, value in entry.items()}
        return entry

    @model_validator(mode="after")
    def _one_kind(self) -> FilterConfig:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            wrong = f"{' and '.join(given)} are given" if given else "no filter is given"
            raise ValueError(f"{wrong}; give one of {', '.join(KINDS)}")
        if self.arguments and self.datatrove is None and self.plugin is None:
            raise ValueError(f"arguments are for datatrove, not for {given[0]}; leave them out (or name a plugin)")
        if self.plugin is not None and self.plugin not in plugins.declared(plugins.FILTERS):
            known = ", ".join(plugins.declared(plugins.FILTERS)) or "none"
            raise ValueError(f"no installed package adds a filter {self.plugin!r}; there are: {known}")
        return self

    @property
    def kind(self) -> str:
        """Which of these it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def called(self) -> str:
        """Its name in counts and lists."""
        if self.name:
            return self.name
        path: str = self.datatrove or self.function or self.plugin or self.kind
        return path.replace(":", ".").rsplit(".", 1)[-1][:LONGEST_NAME]

    def key_config(self) -> dict[str, Any]:
        """What it computes with, and what its drops are called; gives the same filter when read again."""
        given = self.model_dump(include={self.kind, *(("arguments",) if self.datatrove or self.plugin else ())})
        return {"name": self.called, **given}


def entry_of(shorthand: str) -> dict[str, Any]:
    """What a string in the list stands for: a built-in's name, or `module:function`.

    Raises:
        ValueError: It is neither.
    """
    if ":" in shorthand:
        return {"function": shorthand}
    if shorthand in BUILT_IN:
        return {shorthand: {}}
    if shorthand in plugins.declared(plugins.FILTERS):
        return {"plugin": shorthand}
    raise ValueError(
        f"{shorthand!r} is not a built-in filter ({', '.join(BUILT_IN)}); "
        "give module:function, or {datatrove: package.module.Class}"
    )


def check_names(filters: list[FilterConfig]) -> list[FilterConfig]:
    """Refuse two filters of one name: their drops could not be told apart."""
    names = [one.called for one in filters]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(
                f"filters[{names.index(name)}] and filters[{number}] are both called {name!r}; give one another name"
            )
    return filters
