"""What was found, in words; and the configuration as YAML, with a comment to each choice."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

import yaml

from ladm.flows.init.choice import calibrations
from ladm.flows.init.entries import Entry
from ladm.flows.init.kinds import ending_of
from ladm.flows.init.lengths import LENGTHS
from ladm.flows.init.look import Look
from ladm.tasks.printable import printable

MOST_SHOWN = 8


def as_yaml(look: Look, store: str) -> str:
    """The configuration of a look, commented."""
    settings = look.settings(store)
    length = look.choice.length
    lines = [
        f"# Made by `ladm init`; run it with `ladm run`. Of {printable(look.place, 200)!r}:",
        f"# {_files(len(look.files))}, about {round(look.measured.documents):,} documents, of which about "
        f"{look.measured.filling(length):,} fill a window of {length:,} tokens.",
        f"store: {_flow(store)}",
        "sources:",
    ]
    for entry in look.found.entries:
        lines.append(f"  - {_flow(entry.as_settings())}{_why(entry)}")
    lines += [
        f"window: {_flow(settings['window'])}  # or take: all, front-middle-back; shorter documents are not scored",
        f"scorer: {_flow(settings['scorer'])}  # ranked by the calibration that is shipped for this model and window",
    ]
    if "select" in settings:
        lines.append(
            f"select: {_flow(settings['select'])}  # about half of what fills a window; of each domain the same share"
        )
    lines += [
        f"export: {_flow(settings['export'])}",
        "# deduplicate: true                        # leave out exact and near duplicates before scoring",
        "# filters: [repetition]                    # leave out texts that repeat themselves",
        "# max_quarantined: 0.01                    # fail if more than this share cannot be read",
    ]
    return "\n".join(lines) + "\n"


def _why(entry: Entry) -> str:
    if entry.is_constant:
        return f"  # {_files(len(entry.files))}"
    shown = ", ".join(printable(name, 30) for name, _ in entry.values.most_common(4))
    more = ", …" if len(entry.values) > 4 else ""
    return f"  # {_files(len(entry.files))}; domains: {' '.join(shown.split())}{more}"


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    written: str = yaml.safe_dump(
        [value], default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False
    )
    return written.strip()[1:-1]


def in_words(look: Look) -> list[str]:
    """What was found and assumed, in lines."""
    size = sum(file.size for file in look.files)
    endings = Counter(ending_of(file.uri) or "without an ending" for file in look.files)
    kinds = ", ".join(f"{number:,} {printable(ending, 30)}" for ending, number in endings.most_common(MOST_SHOWN))
    lines = [f"{printable(look.place, 300)}: {_files(len(look.files))}, {_bytes(size)} ({kinds})"]
    for entry in look.found.entries[:MOST_SHOWN]:
        lines.append(f"  {_entry_in_words(entry)}")
    if (more := len(look.found.entries) - MOST_SHOWN) > 0:
        lines.append(f"  and {more:,} more entries")
    left_out = [(why, number) for why, number in look.found.left_out.most_common() if number]
    lines += [f"  left out: {_files(number)}, {printable(why, 100)}" for why, number in left_out[:MOST_SHOWN]]
    if more_files := sum(number for _, number in left_out[MOST_SHOWN:]):
        lines.append(f"  left out: {_files(more_files)} more, for other reasons")
    if hidden := look.found.hidden:
        names = ", ".join([*hidden[:MOST_SHOWN], *(["…"] if len(hidden) > MOST_SHOWN else [])])
        lines.append(f"  left out: names that begin with . or _: {printable(names, 200)}")
    letters = look.measured.scripts.total()
    if letters:
        scripts = [
            f"{name.capitalize()} {number / letters:.0%}"
            for name, number in look.measured.scripts.most_common(4)
            if number >= letters / 200  # the sign for micro is a letter, and no script
        ]
        lines.append(f"scripts: {', '.join(scripts)}")
    lines.append(
        f"documents: about {round(look.measured.documents):,} ({look.measured.looked_at:,} looked at); tokens are "
        "estimated by bytes"
    )
    return [*lines, *_window_table(look)]


def _window_table(look: Look) -> list[str]:
    known = calibrations()
    lines = [f"{'window':>9} {'documents that fill it':>24} {'their tokens':>16}   calibration for the embedded model"]
    for length in LENGTHS:
        chosen = "  <- chosen" if length == look.choice.length else ""
        told = f"shipped, span {known[length]}" if length in known else "none; a run makes its own, once"
        filling = f"about {look.measured.filling(length):,}" if look.measured.filling(length) else "none"
        lines.append(f"{length:>9,} {filling:>24} {look.measured.tokens[length]:>16,}   {told}{chosen}")
    if not look.measured.filling(look.choice.length):
        lines.append(
            f"no document is long enough to fill a window of {look.choice.length:,} tokens: a run would score nothing"
        )
    return lines


def _entry_in_words(entry: Entry) -> str:
    only = ", ".join([*(entry.only or [])[:4], *(["…"] if len(entry.only or []) > 4 else [])])
    name = f"{entry.uri} ({only})" if only else entry.uri
    text = f"text in `{entry.text}`" if entry.text else "each file a document"
    if entry.is_constant:
        domain = f"domain {entry.domain}"
    else:
        number = len(entry.values)
        shown = ", ".join(name for name, _ in entry.values.most_common(4))
        domain = f"domain in `{entry.domain}` ({shown}{f', … {number} in all' if number > 4 else ''})"
    unread = f"; {entry.unread:,} hold no record or cannot be read, which a run will name" if entry.unread else ""
    return printable(f"{name}: {_files(len(entry.files))}, {text}, {domain}{unread}", 400)


def _files(number: int) -> str:
    return f"{number:,} file{'' if number == 1 else 's'}"


def _bytes(size: int) -> str:
    for unit, times in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= times:
            return f"{size / times:.1f} {unit}"
    return f"{size} bytes"


def next_steps(config: str) -> list[str]:
    """What to run next."""
    path = shlex.quote(config)
    return [
        f"  ladm run {path} --until tokenize    reads everything and counts it exactly; no model runs",
        f"  ladm run {path}                     the whole run",
        f"  ladm evaluate {path}                how well the score tells whole documents from broken ones in this data",
    ]
