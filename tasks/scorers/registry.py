"""The scorers beside `ladm`: which there are, and what they need and give, all together.

Most give a score, by which documents can be ranked; `text` and `attention` give columns of what a window is like.
`BUILT_IN` is the one place to add one at: the settings, the columns and what `select.rank_by` may name follow from it.
Other packages add theirs by entry points (`plugins.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, ValidationError, create_model, model_validator

from ladm.tasks import plugins
from ladm.tasks.schema import GATED
from ladm.tasks.schema import SCORES as OWN_SCORES
from ladm.tasks.scorers import attention_columns, gzip_ratio, longattn, longfilter, prolong, random_order
from ladm.tasks.scorers import text as text_columns
from ladm.tasks.scorers.evidence import Evidence, Needs
from ladm.tasks.settings import Settings

_ANY_LENGTH = 4096  # what kind of thing a scorer needs does not depend on it

TextOf = Callable[[npt.NDArray[np.integer]], str]
"""Token ids → their text."""

BUILT_IN: dict[str, Any] = {
    "longattn": longattn,
    "prolong": prolong,
    "longfilter": longfilter,
    "gzip": gzip_ratio,
    "random": random_order,
    "text": text_columns,
    "attention": attention_columns,
}
"""Name → module, with `CONFIG`, `needs(config, length)` and `score(config, evidence)` (`evidence.py`)."""


def _columns(name: str, module: Any) -> list[pa.Field]:
    fields: list[pa.Field] = getattr(module, "COLUMNS", [pa.field(name, pa.float64())])
    return fields


def _wrong_with(name: str, module: Any) -> str:
    """What keeps a scorer of another package from being used."""
    if missing := [one for one in ("CONFIG", "needs", "score") if not hasattr(module, one)]:
        return f"it has no {' and no '.join(missing)}"
    if not (isinstance(module.CONFIG, type) and issubclass(module.CONFIG, Settings)):
        return "its CONFIG is not derived from ladm.tasks.settings.Settings"
    try:
        module.CONFIG()
    except ValidationError:
        return "its CONFIG has settings without a default"
    own = {column.name for one in BUILT_IN for column in _columns(one, BUILT_IN[one])} | set(OWN_SCORES.names)
    taken = sorted(own & {column.name for column in _columns(name, module)})
    return f"ladm has a column {taken[0]} of its own" if taken else ""


ADDED, UNUSABLE = plugins.loaded(plugins.SCORERS, _wrong_with, (*BUILT_IN, "ladm", "order", "dependency", "gate"))
"""Scorers of other packages: name → module, and name → why it cannot be used."""
BESIDE: dict[str, Any] = BUILT_IN | ADDED
"""All scorers."""

SCORES = tuple(name for name, module in BESIDE.items() if not hasattr(module, "COLUMNS"))
"""Those that give one score, by which documents can be ranked."""


def columns_of(name: str) -> list[pa.Field]:
    """The columns that a scorer gives: those that its module lists, or one of its own name."""
    return _columns(name, BESIDE[name])


def version_of(name: str) -> int:
    """The version of a scorer, which its module raises when it gives other numbers: they are then measured again."""
    return int(getattr(BESIDE[name], "VERSION", 1))


def distribution_of(name: str) -> str | None:
    """The package, with its version, that a scorer comes from; None for ladm's own."""
    return plugins.distribution_of(plugins.SCORERS, name) if name in ADDED else None


def all_columns() -> list[pa.Field]:
    """The columns that all scorers give, and the gate's distance."""
    return [*(field for name in BESIDE for field in columns_of(name)), GATED.field("gate_distance")]


def scorer_of_column() -> dict[str, str]:
    """Column → the scorer that gives it, or `gate`."""
    return {column.name: name for name in BESIDE for column in columns_of(name)} | {"gate_distance": "gate"}


class _Beside(Settings):
    """What `BesideConfig` can tell, whatever scorers there are."""

    @model_validator(mode="before")
    @classmethod
    def _can_be_used(cls, beside: Any) -> Any:
        """Say of a scorer that cannot be loaded why, and not that there is none of its name."""
        for name in beside if isinstance(beside, dict) else ():
            if name in UNUSABLE and name not in BUILT_IN:
                raise ValueError(UNUSABLE[name])
        return beside

    @property
    def names(self) -> tuple[str, ...]:
        """The scorers asked for."""
        return tuple(name for name in BESIDE if getattr(self, name) is not None)

    @property
    def model(self) -> bool:
        """Whether one of them needs the model."""
        return self.needs(_ANY_LENGTH).model

    @property
    def head(self) -> bool:
        """Whether one of them needs the model's language-model head."""
        return self.needs(_ANY_LENGTH).head

    @property
    def reads_text(self) -> bool:
        """Whether one of them needs the window's text."""
        return self.needs(_ANY_LENGTH).text

    def needs_of(self, name: str, length: int = _ANY_LENGTH) -> Needs:
        """What one of them needs of a window of `length` tokens."""
        needs: Needs = BESIDE[name].needs(getattr(self, name), length)
        return needs

    def needs(self, length: int) -> Needs:
        """What they need of a window of `length` tokens, all together."""
        each = [self.needs_of(name, length) for name in self.names]
        return Needs(
            layers=tuple(sorted({layer for one in each for layer in one.layers})),
            profile=tuple(sorted({layer for one in each for layer in one.profile})),
            targets=tuple(sorted({target for one in each for target in one.targets})),
            snippets=tuple(dict.fromkeys(snippet for one in each for snippet in one.snippets)),
            text=any(one.text for one in each),
        )

    def scores(self, evidence: Evidence) -> dict[str, float]:
        """The scores of one window, by name, of those that give one score."""
        return {name: BESIDE[name].score(getattr(self, name), evidence) for name in self.names}

    def measured(self, evidence: Evidence) -> dict[str, dict[str, Any]]:
        """Their columns of one window: scorer → column → value."""
        found = {}
        for name in self.names:
            value = BESIDE[name].score(getattr(self, name), evidence)
            found[name] = value if isinstance(value, dict) else {name: value}
        return found


if TYPE_CHECKING:

    class BesideConfig(_Beside):
        """A field a scorer, of its module's `CONFIG`."""

    RankBy = str
else:
    BesideConfig = create_model(
        "BesideConfig",
        __base__=_Beside,
        __module__=__name__,
        __doc__="Which scorers run beside `ladm`, each with its settings (`{gzip: {}}`).",
        **{
            name: (module.CONFIG | None, Field(default=None, description=module.CONFIG.__doc__))
            for name, module in BESIDE.items()
        },
    )
    RankBy = Literal[("ladm", "order", *(name for name in BESIDE if name in [one.name for one in columns_of(name)]))]
"""What `select.rank_by` may name: a score of `ladm`'s own, or a scorer that gives a score of its name."""


def gather_without_model(
    beside: BesideConfig, ids_BL: npt.NDArray[np.integer], text_of: TextOf | None
) -> Iterator[Evidence]:
    """The evidence of each window of a batch for scorers that need no model: its tokens, and its text if asked for."""
    for ids_L in ids_BL:
        yield Evidence(ids=ids_L, text=text_of(ids_L) if beside.reads_text and text_of else "")
