"""Re-runs: a finished run with knobs turned, simulated in a process of its own, one after the other.

A job is *waiting*, *running*, then *done*, *failed* or *cancelled*, and stays what it became.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError, DistsimError

#: jobs that may wait
MOST = 32
_OFTEN = 0.1  #: seconds between words about the progress of one thing


@dataclass(slots=True)
class Job:
    """One re-run. Fields change under the lock of its queue."""

    number: int
    of: str  #: name of the result that it began from
    name: str  #: of the result that it writes
    source: Path
    target: Path
    changes: Mapping[str, str]
    state: str = "waiting"
    fraction: float | None = None
    what: str = "waiting for its turn"
    message: str = ""  #: the answer, or why it failed
    process: Any = field(default=None, repr=False)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        names = ("number", "of", "name", "state", "fraction", "what", "message")
        return {name: getattr(self, name) for name in names} | {"changes": dict(self.changes)}


class Jobs:
    """A queue with one worker process at a time. Its thread ends with :meth:`close`."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._jobs: list[Job] = []
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="distsim-ui-jobs", daemon=True)
        self._thread.start()

    def submit(self, of: str, name: str, source: Path, target: Path, changes: Mapping[str, str]) -> Job:
        """Queue a re-run of ``source`` that writes ``target``. Raises ConfigError: too many wait, or one writes there."""
        with self._lock:
            open_ = [job for job in self._jobs if job.state in ("waiting", "running")]
            if len(open_) >= MOST:
                raise ConfigError(f"{MOST} runs are waiting already", fix="Wait for one of them, or cancel it.")
            if any(job.target == target for job in open_):
                raise ConfigError(f"a run that is under way writes {name}", fix="Take another name.")
            job = Job(len(self._jobs) + 1, of, name, source, target, changes)
            self._jobs.append(job)
            self._lock.notify_all()
            return job

    def listed(self) -> list[dict[str, Any]]:
        """All jobs, latest first."""
        with self._lock:
            return [job.document() for job in reversed(self._jobs)]

    def get(self, number: int) -> dict[str, Any]:
        """One job. Raises ConfigError for a number that none has."""
        with self._lock:
            return self._find(number).document()

    def cancel(self, number: int) -> dict[str, Any]:
        """End a job; one that has ended stays as it is. Raises ConfigError for a number that none has."""
        with self._lock:
            job = self._find(number)
            if job.state in ("waiting", "running"):
                job.state, job.what = "cancelled", "cancelled"
                _end(job.process)
            return job.document()

    def close(self) -> None:
        """End all of them, and the thread. Returns once no process is left."""
        with self._lock:
            self._closed = True
            for job in self._jobs:
                if job.state in ("waiting", "running"):
                    job.state, job.what = "cancelled", "the server ended"
                    _end(job.process)
            self._lock.notify_all()
        self._thread.join()

    def _find(self, number: int) -> Job:
        if not 1 <= number <= len(self._jobs):
            raise ConfigError(f"there is no run {number}", fix="Start it from the page of a result.")
        return self._jobs[number - 1]

    def _next(self) -> Job | None:
        """The job whose turn it is, once there is one; None when the queue is closed."""
        with self._lock:
            while not self._closed:
                for job in self._jobs:
                    if job.state == "waiting":
                        return job
                self._lock.wait()
            return None

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            self._conduct(job)

    def _conduct(self, job: Job) -> None:
        """One job from its start to its end."""
        # NOTE: not forked: this process has threads, whose locks a fork would copy in whatever state they are
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe(duplex=False)
        with self._lock:
            if job.state != "waiting":
                return
            job.process = spawn.Process(target=work, args=(theirs, job.source, job.target, dict(job.changes)), daemon=True)
            job.process.start()
            job.state, job.what = "running", "starting"
        theirs.close()
        try:
            while True:
                self._told(job, ours.recv())
        except EOFError:
            pass
        job.process.join()
        with self._lock:
            if job.state == "running":
                code = job.process.exitcode
                job.state, job.message = "failed", f"its process died (exit code {code}); was there memory enough?"
        _sweep(job)

    def _told(self, job: Job, word: tuple[str, Any, Any]) -> None:
        """What the worker says: ("progress", fraction, what), ("done" or "failed", message, None)."""
        kind, first, second = word
        with self._lock:
            if job.state != "running":
                return
            if kind == "progress":
                job.fraction, job.what = first, second
            else:
                job.state, job.message, job.fraction, job.what = kind, first, 1.0 if kind == "done" else None, kind


def _end(process: Any) -> None:
    if process is not None and process.is_alive():
        process.terminate()


def _sweep(job: Job) -> None:
    """Take away what a worker left that was ended while it wrote."""
    import shutil

    for end in ("part", "old"):
        left = job.target.with_name(f".{job.target.name}.{job.process.pid}.{end}")
        shutil.rmtree(left, ignore_errors=True)


def work(say: Connection, source: Path, target: Path, changes: Mapping[str, str]) -> None:
    """In the worker: reopen, change, run, save; every word goes through ``say``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends us; a Ctrl-C of the terminal comes to us as well

    last = 0.0

    def progress(fraction: float | None, what: str) -> None:
        nonlocal last
        now = time.monotonic()
        if fraction is None or now >= last + _OFTEN:
            last = now
            say.send(("progress", fraction, what))

    try:
        from distsim.analysis.summary import summarise
        from distsim.report.answer import answer
        from distsim.report.folder import save
        from distsim.report.reopen import reopen
        from distsim.scenario import scenario_of

        progress(None, "reading the result")
        scenario = scenario_of(reopen(source).spec).changed(changes)
        result = scenario.run(progress)
        progress(None, "summing up")
        summary = summarise(result)
        progress(None, "writing")
        save(result, target, summary)
        say.send(("done", answer(result, summary), None))
    except DistsimError as error:
        say.send(("failed", str(error), None))
    except (MemoryError, RecursionError, OverflowError) as error:
        say.send(("failed", f"too large for this machine ({type(error).__name__})", None))
    except OSError as error:
        say.send(("failed", f"{error.filename or 'input or output'}: {error.strerror or error}", None))
    finally:
        say.close()
