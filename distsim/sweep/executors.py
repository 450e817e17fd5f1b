"""Where points are run: any ``concurrent.futures.Executor``: this process, local processes, or a Dask cluster."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distsim.errors import ConfigError

_PATIENCE = 30  #: seconds to wait for the first worker of a Dask cluster


class Inline(Executor):
    """Runs what is submitted at once, in this process: one worker needs no other."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run it."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True, slots=True)
class Crew:
    """An executor and how many run at once under it."""

    executor: Executor
    width: int
    named: str  #: "2 processes", "dask tcp://..."
    remote: bool = False  #: whether workers may run other code than this process


@contextmanager
def crew(workers: int = 0, dask: str | None = None) -> Iterator[Crew]:
    """Workers for the time of a with block; on an exception those of this machine are ended at once.

    Args:
        workers: local processes; 0: one per core that this process may use.
        dask: ``tcp://host:port`` of a scheduler, or ``local:N`` for N processes under a scheduler of our own.

    Raises: ConfigError where Dask is absent, does not answer, or both are given.
    """
    if dask is not None:
        if workers:
            raise ConfigError("--workers has no effect on a Dask cluster, which has its own", fix="Leave one of them out.")
        with _dask(dask) as found:
            yield found
        return
    count = workers or len(os.sched_getaffinity(0))
    if count == 1:
        yield Crew(Inline(), 1, "this process")
        return
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _settle)
    before = set(multiprocessing.active_children())
    try:
        yield Crew(pool, count, f"{count} processes")
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    pool.shutdown()


def _settle() -> None:
    """In a worker: leave Ctrl-C to the parent, and do not outlive it (a parent that is killed cannot say goodbye)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _dask(where: str) -> Iterator[Crew]:
    """Workers of a Dask cluster."""
    try:
        dask: Any = importlib.import_module("dask")
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise ConfigError("Dask is not installed", where="--dask", fix="pip install 'distsim[dask]'") from None
    kind, _, count = where.partition(":")
    cluster: Any = None
    if kind == "local":
        if not count.isdigit() or int(count) < 1:
            raise ConfigError(f"{where!r} names no number of processes", where="--dask", expected="local:2 or tcp://host:port")
        # workers of our own need no dashboard, and no room on disk
        dask.config.set({"distributed.worker.use-file-locking": False})
        cluster = distributed.LocalCluster(
            n_workers=int(count), threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50,
        )  # fmt: skip
    elif kind not in ("tcp", "tls", "ucx"):
        raise ConfigError(f"{where!r} is no Dask scheduler", where="--dask", expected="local:2 or tcp://host:port")
    client: Any = None
    try:
        try:
            client = distributed.Client(cluster if cluster is not None else where, timeout=_PATIENCE)
            client.wait_for_workers(1, timeout=_PATIENCE)
        except (OSError, TimeoutError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"no Dask worker answers at {where} ({reason})", where="--dask") from None
        width = sum(client.nthreads().values())
        yield Crew(client.get_executor(), width, f"dask {where} ({width} threads)", remote=cluster is None)
    finally:
        for one in (client, cluster):
            if one is not None:
                one.close()
