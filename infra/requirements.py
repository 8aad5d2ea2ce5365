"""Print what pyproject.toml asks for, one requirement a line: `python infra/requirements.py EXTRA,EXTRA`.

For the image, which installs its dependencies before the code is there.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(extras: str) -> list[str]:
    """The dependencies of the package, and of some of its extras.

    Args:
        extras: Their names, with commas between them; may be empty.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: list[str] = list(project["dependencies"])
    for extra in (name.strip() for name in extras.split(",")):
        if extra:
            found += project["optional-dependencies"][extra]
    return found


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1] if len(sys.argv) > 1 else "")))
