"""Driving the real command line into faults, and counting what became of the rows.

Every run is a process of its own on the tiny model: a fork of one that has imported everything (which is most of what a
small run costs), with one Prefect server for all. The undisturbed run is made first, at the very path of the store
that the faults then happen to, so that everything a run writes for its user can be compared byte for byte.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from conftest import Answer

from ladm.flows.dag.stages import NAMES
from ladm.flows.runs.read import record_files

FORKING = """
import json, os, select, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from ladm.flows.orchestration.environment import quiet_prefect
quiet_prefect(Path({cache!r}))
import ladm.flows.cli, ladm.flows.config, ladm.flows.console, ladm.flows.dag.curate, ladm.tasks.scorers.attention

wake, woken = os.pipe()
os.set_blocking(woken, False)
signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
signal.signal(signal.SIGCHLD, lambda *_: None)
while True:
    ready, _, _ = select.select([0, wake], [], [])
    if wake in ready:
        os.read(wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            print("ended", pid, os.waitstatus_to_exitcode(status), flush=True)
    if 0 in ready:
        request = sys.stdin.buffer.raw.read(65536)
        if not request:
            break
        request = json.loads(request)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), number)
            exec(request["before"])
            code = ladm.flows.cli.main(request["arguments"])
            sys.stdout.flush()
            os._exit(code)  # the libraries' own ends are not made for a process that was forked
        print("started", pid, flush=True)
"""
PATIENCE = 1200.0


@dataclass
class Ledger:
    """What the suite's closing line says."""

    tried: int = 0
    survived: int = 0
    lost: int = 0
    doubled: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, wanted: Sequence[Any], found: Sequence[Any], survived: bool = True) -> None:
        """One fault: the rows that should be there afterwards, and those that are."""
        self.tried += 1
        self.by_kind[kind] += 1
        want, have = Counter(map(repr, wanted)), Counter(map(repr, found))
        self.lost += (want - have).total()
        self.doubled += (have - want).total()
        self.survived += survived and want == have

    def line(self) -> str:
        kinds = ", ".join(f"{number} {kind}" for kind, number in self.by_kind.items())
        return (
            f"faults tried: {self.tried} ({kinds}); runs survived: {self.survived}; "
            f"rows lost: {self.lost}, doubled: {self.doubled}"
        )


class Forker:
    """The process that runs are forked from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = 0
        self.codes: dict[int, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKING.format(cache=str(folder), here=str(Path(__file__).parent))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def start(self, arguments: Sequence[str], before: str = "") -> Running:
        """Start a run; `before` is Python to spoil it with."""
        self.started += 1
        out, err = self.folder / f"{self.started}.out", self.folder / f"{self.started}.err"
        request = {"arguments": list(arguments), "before": before, "out": str(out), "err": str(err)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode())
        while True:
            word, pid = self._line()
            if word == "started":
                return Running(self, pid, out, err)

    def look(self) -> None:
        """Take in what ended meanwhile."""
        assert self._process.stdout is not None
        while select.select([self._process.stdout], [], [], 0)[0]:
            self._line()

    def _line(self) -> tuple[str, int]:
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):  # unbuffered, so that `select` knows what is there
            letter = self._process.stdout.read(1)
            assert letter, "the forking process is gone"
            line += letter
        word, *numbers = line.split()
        pid = int(numbers[0])
        if word == b"ended":
            self.codes[pid] = int(numbers[1])
        return word.decode(), pid

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Running:
    """A run under way."""

    forker: Forker
    pid: int
    out: Path
    err: Path

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        self.forker.look()
        return self.forker.codes.get(self.pid)

    def end(self) -> Answer:
        """Wait for it."""
        deadline = time.monotonic() + PATIENCE
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"it never ended: {self.err.read_text()}"
            time.sleep(0.02)
        err = self.err.read_text()
        assert "Traceback" not in err, err
        return Answer(code, self.out.read_text(), err)

    def kill(self) -> None:
        """SIGKILL, as the kernel does it when memory runs out."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        assert self.end().code in (-signal.SIGKILL, 0)


def wait_for(condition: Callable[[], object], process: Running) -> bool:
    """Look until the condition holds; False if the process ended first."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
    return True


def files_in(store: Path) -> list[Path]:
    """Everything in a store, half-written files too."""
    found = []
    for parent, _, names in os.walk(store):
        found += [Path(parent) / name for name in names]
    return found


def stage_reached(store: Path) -> str:
    """The last stage of which there is data. A calibration, which a run writes at its beginning, is none."""
    there = [stage for stage in NAMES if any((store / stage).glob("*/*.parquet"))]
    return there[-1] if there else "start"


def run_folder(store: Path, run_id: str | None = None) -> Path:
    """The folder of a run; of the latest one when not given."""
    return store / "runs" / (run_id or (store / "latest").read_text())


def results(store: Path) -> dict[str, bytes]:
    """All that the latest run made for its user, byte for byte, but for the run's id and the account of itself."""
    folder = run_folder(store)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(folder.name.encode(), b"<run>")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {Path(one).name for one in record_files(folder.name)}
    }


def ranked(store: Path) -> list[Any]:
    """The rows of the latest run's ranking: document, rank, whether it is selected, and its role."""
    columns = ["domain", "rank", "doc_id", "selected", "role"]
    table = pq.read_table(run_folder(store) / "ranking.parquet", columns=columns)
    return [tuple(row.values()) for row in table.to_pylist()]
