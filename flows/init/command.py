"""`ladm init`: writes a configuration for some data, and says what it follows from."""

from __future__ import annotations

from pathlib import Path

from ladm.flows.config import store_uri, validated
from ladm.flows.init.look import look_at
from ladm.flows.init.told import as_yaml, in_words, next_steps
from ladm.flows.yaml_text import read_yaml
from ladm.tasks.errors import ConfigError


def write_configuration(place: str, out: Path, store: str | None = None, *, replace: bool = False) -> None:
    """Look at some data, write a configuration that reads it, and print what was found and what to run next.

    Args:
        place: A folder, a file, a glob, or a URL.
        out: The configuration's file.
        store: The store that it names; `$LADM_STORE` or `./ladm-store` when not given.
        replace: Whether a file that is there may be replaced.

    Raises:
        UserError: Nothing there can be read as text, or the file is there or cannot be written.
    """
    if out.exists() and not replace:
        raise ConfigError(f"--out: {str(out)!r} is there already; give another file, or --force to replace it")
    uri = store_uri(store)
    look = look_at(place, uri)
    text = as_yaml(look, uri)
    validated(read_yaml(text))  # what is written can be run
    print("\n".join(in_words(look)))
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out: {str(out)!r} cannot be written ({error.strerror}); give another file") from None
    print(f"written: {out}\nnext:")
    print("\n".join(next_steps(str(out))))
