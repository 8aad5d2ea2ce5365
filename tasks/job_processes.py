"""Processes that do jobs for this one: one for each GPU, where there are several, or for each core that reads.

Python does one thing at a time in a process: the calls that keep a GPU at work, or the taking apart of records. Each of
these takes several jobs at once. What a job tells of its progress is told where it was asked for; a run that is stopped
ends them. They end with the process that started them, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import pyarrow as pa

from ladm.tasks import progress, stopping
from ladm.tasks.job import Job, Stage, run_jobs
from ladm.tasks.manifest import Manifest

PATIENCE_SECONDS = 10.0
"""How long a process may take to end, before it is killed."""
START = "import sys; sys.path[:] = {path!r}; from ladm.tasks.job_processes import serve; serve({number})"


class LostProcessError(ConnectionError):
    """A process ended in the middle of a job. The job may be done again, in another one."""


class JobProcesses:
    """The processes of a run, each started when there is a first job for it.

    Args:
        environments: Name → what its environment has in place of this one's.
        threads: Of the numerical libraries, in each of them, unless the environment says it.
        used: Gets the names of those that jobs are given to.
    """

    def __init__(self, environments: Mapping[str, Mapping[str, str]], threads: int, used: list[str]) -> None:
        self._used = used
        self._lock = threading.Lock()
        self._processes = [_JobProcess(name, own, threads) for name, own in environments.items()]

    def __len__(self) -> int:
        return len(self._processes)

    def start(self, number: int, stage: Stage) -> None:
        """Start so many of them ahead of their first job, and have them import what jobs of a stage need."""
        with contextlib.suppress(OSError):  # no process to be had: the first job tells of it
            for process in self._processes[:number]:
                process.start(stage)

    def run_jobs(self, stage: Stage, job: Job) -> list[Manifest]:
        """Do a job, and those that go along with it, in the process that has the fewest; see `job.run_jobs`.

        Raises:
            LostProcessError: Its process ended in the middle.
        """
        with self._lock:
            process = min(self._processes, key=lambda one: one.under_way)
            process.under_way += 1
            self._used[:] = sorted({*self._used, process.name}, key=lambda name: (len(name), name))
        try:
            return process.run_jobs(stage, job)
        finally:
            with self._lock:
                process.under_way -= 1

    def close(self) -> None:
        """End all of them."""
        for process in self._processes:
            process.end()
        for process in self._processes:
            process.wait()


class _JobProcess:
    """A process, and the one that takes its place if it is lost."""

    def __init__(self, name: str, environment: Mapping[str, str], threads: int) -> None:
        self.name = name
        self.under_way = 0
        self._environment, self._threads = environment, threads
        self._lock = threading.Lock()
        self._now: _Running | None = None

    def run_jobs(self, stage: Stage, job: Job) -> list[Manifest]:
        """Do a job there, and pass on what it tells of its progress."""
        running = self._running()
        with stopping.telling(running.end):
            answers = running.ask(stage, job)
            while True:
                what, *said = answers.get()
                if what == "progress":
                    progress.report(*said)
                elif what == "done":
                    done: list[Manifest] = said[0]
                    return done
                else:
                    stopping.check()  # it may have ended because it was told to
                    raise said[0]

    def start(self, stage: Stage) -> None:
        self._running().get_ready(stage)

    def end(self) -> None:
        if self._now:
            self._now.end()

    def wait(self) -> None:
        if self._now:
            self._now.wait()

    def _running(self) -> _Running:
        with self._lock:
            if self._now is None or self._now.lost:
                self._now = _Running(self.name, self._environment, self._threads)
            return self._now


class _Running:
    """A process that runs, and the way to it."""

    def __init__(self, name: str, environment: Mapping[str, str], threads: int) -> None:
        self.lost = False
        self._name = name
        self._lock = threading.Lock()
        self._answers: dict[int, SimpleQueue[Any]] = {}
        self._asked = 0
        self._link, theirs = multiprocessing.Pipe()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", START.format(path=sys.path, number=number)],
                pass_fds=(number,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # which is for the run's own results
                env={"OMP_NUM_THREADS": str(threads), **os.environ, **environment},
            )
        threading.Thread(target=self._hear, name=f"ladm-{name}", daemon=True).start()

    def ask(self, stage: Stage, job: Job) -> SimpleQueue[Any]:
        """Hand a job over; gives where its progress and its end are told."""
        answers: SimpleQueue[Any] = SimpleQueue()
        with self._lock:
            if self.lost:
                raise self._loss()
            self._asked += 1
            self._answers[self._asked] = answers
            with contextlib.suppress(OSError):  # one that is gone; then `_hear` answers
                self._link.send((self._asked, stage, job))
        return answers

    def get_ready(self, stage: Stage) -> None:
        """Have it import what jobs of a stage need."""
        with self._lock, contextlib.suppress(OSError):
            self._link.send((0, stage, None))

    def end(self) -> None:
        """Tell it to end at once."""
        with self._lock, contextlib.suppress(OSError):
            self._link.send(None)

    def wait(self) -> None:
        """Wait until it has ended."""
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _hear(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, *said = self._link.recv()
                self._answers[number].put(said)
        self._process.wait()
        with self._lock:
            self.lost = True
            self._link.close()
            for answers in self._answers.values():  # that of a job which is done nobody reads
                answers.put(("error", self._loss()))

    def _loss(self) -> LostProcessError:
        code = self._process.returncode
        how = f"signal {-code}" if code and code < 0 else f"code {code}"
        return LostProcessError(f"the process of {self._name} ended before its job was done ({how})")


# -- in the process itself -----------------------------------------------------------------------------------------


def serve(number: int) -> None:
    """Do the jobs that come over the connection of this number, several at once, until it is told to end or cut off."""
    for one in (signal.SIGINT, signal.SIGTERM):  # a terminal sends it to all; the process that asks tells what to do
        signal.signal(one, signal.SIG_IGN)
    link, lock = Connection(number), threading.Lock()

    def say(*what: object) -> None:
        with lock, contextlib.suppress(OSError):
            link.send(what)

    def do(number: int, stage: Stage, job: Job | None) -> None:
        if job is None:  # the stage has come with its module, and Arrow looks for pandas at its first list
            pa.array([0])
            return
        progress.listener.set(lambda stage, windows: say(number, "progress", stage, windows))
        try:
            say(number, "done", run_jobs(stage, job))
        except BaseException as error:
            say(number, "error", _that_can_be_sent(error))

    with contextlib.suppress(EOFError, OSError):
        while request := link.recv():
            threading.Thread(target=do, args=request, daemon=True).start()
    from ladm.tasks.storage.files import remove_unfinished  # noqa: PLC0415

    remove_unfinished()
    os._exit(0)


def _that_can_be_sent(error: BaseException) -> BaseException:
    """The error, or, if it cannot be sent to another process, what it says."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
