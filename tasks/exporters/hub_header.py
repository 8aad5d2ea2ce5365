"""The YAML at the head of a dataset card: what the Hugging Face Hub filters by, and what `load_dataset` opens.

Licences and languages are those that the selected documents' own metadata states, unless `card:` says them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ladm.tasks.exporters.formats import EXPORTERS
from ladm.tasks.exporters.tokens import TokenExport

TAGS = ("ladm", "long-context", "pretraining")
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
LARGER = ((10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"))
LICENCES = frozenset(
    [
        *("apache-2.0", "mit", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0"),
        *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0"),
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0"),
        *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2"),
        *("agpl-3.0", "gfdl", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "isc", "mpl-2.0", "ms-pl", "ncsa"),
        *("odc-by", "odbl", "ofl-1.1", "osl-3.0", "postgresql", "pddl", "zlib", "unlicense", "wtfpl"),
    ]
)
"""Of the licences that the Hub knows by an id, those that texts come under."""
WORDS = {
    "creative-commons": "cc",
    "attribution": "by",
    "non-commercial": "nc",
    "noncommercial": "nc",
    "share-alike": "sa",
    "sharealike": "sa",
    "no-derivatives": "nd",
    "noderivatives": "nd",
    "-international": "",
}
"""How licences' names are written out, and how the Hub's ids say it."""
TEXTS = {
    "parquet": "parquet/{split}-*.parquet",
    "jsonl.zst": "jsonl.zst/{split}-*.jsonl.zst",
    "datasets": "datasets/{split}/*.arrow",
}
"""Format of text → its files in the folder of an export."""
NOT_STATED = "not stated"
"""What `sql/licences.sql` gives for a document without a licence."""
UNDETERMINED = "und"
"""ISO 639-2's word for a language that is not known."""


def hub_header(
    exports: Sequence[Mapping[str, Any]],
    card: Mapping[str, Any],
    licences: Sequence[Mapping[str, Any]],
    languages: Sequence[str],
    rows: int,
    splits: Sequence[float],
) -> list[str]:
    """The header, as lines, between its marks.

    Args:
        exports: The `export:` list.
        card: The `card:` section.
        licences: Rows of `licences.sql`.
        languages: Codes of languages, the one of the most documents first.
        rows: How many rows an export of texts has.
        splits: The lowest and the highest place of a document between 0 and 1, by which splits are made; empty where
            nothing is selected.
    """
    header: dict[str, Any] = {
        **_licence(card.get("license"), licences),
        "language": list(card.get("language") or languages or [UNDETERMINED]),
        "task_categories": ["text-generation"],
        "size_categories": [next((name for end, name in (*SIZES, *LARGER) if rows < end), "n>1T")],
        "tags": list(dict.fromkeys([*TAGS, *(card.get("tags") or [])])),
        "configs": _configs(exports, splits),
    }
    return ["---", *yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip().splitlines(), "---", ""]


def hub_licence(stated: str) -> str | None:
    """The id by which the Hub knows a licence that metadata names in one of the usual ways; None if it knows none."""
    name = re.sub(r"[^a-z0-9.]+", "-", stated.lower()).strip("-.")
    address = re.fullmatch(r"https?-(?:www\.)?creativecommons.org-(?:licenses|publicdomain)-(.*)", name)
    if address:
        name = f"cc-{address[1]}".replace("cc-zero-", "cc0-")
    name = re.sub(r"^the-|-licen[cs]e|-only$|-or-later$|-(?:deed|legalcode)(?:\.[a-z-]+)?$", "", name)
    name = re.sub(r"-(?:version-|v)?(\d)|v(\d)$", r"-\1\2", name)
    for words, short in WORDS.items():
        name = name.replace(words, short)
    usual = {"cc0": "cc0-1.0", "cc-zero": "cc0-1.0", "apache": "apache-2.0", "apache2": "apache-2.0"}
    tries = (usual.get(name), name, f"{name}.0", f"{name}-1.0", f"cc-{name}", f"cc-{name}.0")
    return next((one for one in tries if one in LICENCES), None)


def _licence(given: str | None, licences: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if given:
        return {"license": given}
    stated = [str(row["licence"]) for row in licences]
    if not stated or set(stated) == {NOT_STATED}:
        return {"license": "unknown"}
    ids = [hub_licence(one) for one in stated]
    if None in ids:
        return {"license": "other", "license_name": "as-listed-below"}
    found = sorted({one for one in ids if one})
    return {"license": found[0] if len(found) == 1 else found}


def _configs(exports: Sequence[Mapping[str, Any]], splits: Sequence[float]) -> list[dict[str, Any]]:
    """What `datasets.load_dataset(folder, name)` opens: texts by default, and beside them the sidecars of tokens.

    It reads all of a card's configurations by one reader, that of the first; so those of other kinds are left out, and
    are opened by their own folder.
    """
    found: list[dict[str, Any]] = []
    kind = ""
    for one in sorted(exports, key=lambda one: list(EXPORTERS).index(one["format"])):
        form = one["format"]
        if form not in TEXTS and not issubclass(EXPORTERS[form].entry, TokenExport):
            continue  # of another package, which alone knows how it is read
        pattern = TEXTS.get(form, f"{form}/{{split}}-*.pieces.parquet")
        files = [{"split": split, "path": pattern.format(split=split)} for split in _splits(one, splits)]
        ending = pattern.rsplit(".", 1)[-1]
        if files and ending == (kind or ending):
            kind = ending
            found.append({"config_name": form if found else "default", "data_files": files})
    return found


def _splits(export: Mapping[str, Any], splits: Sequence[float]) -> list[str]:
    """The splits of an export that hold a document."""
    if not splits:
        return []
    share, (lowest, highest) = export["validation"], splits
    return [*(["train"] if highest >= share else []), *(["validation"] if lowest < share else [])]
