"""The `ladm` program, interrupted while it loads and when it is done."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

INTERRUPT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run under `nohup`
{before}
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "ladm.flows.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["ladm", "--version"]
from ladm.flows.entry import main
sys.exit(main())
"""


def test_it_is_the_program_that_is_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"ladm": "ladm.flows.entry:main"}


@pytest.mark.parametrize(
    ("before", "code", "told"),
    [
        ("", 130, "ladm: interrupted\n"),
        ("os.close(2)", 130, ""),
        ("signal.signal(signal.SIGINT, signal.SIG_IGN)", 0, ""),
    ],
)
def test_an_interrupt_while_it_loads_is_told_in_a_line(before: str, code: int, told: str) -> None:
    program = INTERRUPT.format(before=before)
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (code, told)


def test_an_interrupt_after_its_end_is_told_in_a_line() -> None:
    program = (
        "import os, signal, sys, ladm.flows.cli\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "ladm.flows.cli.main = lambda: 0\nfrom ladm.flows.entry import main\n"
        "main()\nos.kill(os.getpid(), signal.SIGINT)\nimport time; time.sleep(9)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (130, "ladm: interrupted\n")
