"""The errors that are a user's to mend, and the one that is our own bug.

Every `UserError` is a `ValueError` whose message is one line that names the field or file and the fix. The CLI
prints that line and exits 2. A retry never helps against any of these, so `stage.py` never retries them.
"""

from __future__ import annotations


class AccountError(RuntimeError):
    """Our own bug: records lost or doubled, or something else that must hold of users' data and does not.

    Raised, never asserted: `python -O` leaves assertions out.
    """


class UserError(ValueError):
    """Something the user did that the user can mend. The message is one line, fit to print as it stands."""


class ConfigError(UserError):
    """A configuration that cannot run: the message names the field and the fix."""


class ModelError(UserError):
    """A model reference that cannot be resolved, or a model that has no attention to measure."""


class SourceError(UserError):
    """A source that names no readable file."""


class SourceChangedError(SourceError):
    """A source that was written to while it was read. The same run need not meet that again."""


class RecordError(UserError):
    """A run that is not there, or whose record cannot be read."""


class QueryError(UserError):
    """An SQL query that is refused or that DuckDB rejects."""
