"""Everything that distsim refuses, in one tree.

::

    DistsimError
    ├── ConfigError            an option, file or spec that cannot be used        (exit code 2)
    │   ├── UnknownNameError   no such topology, algorithm, level ...             (2)
    │   ├── TopologyError      a topology that is malformed, too small or cut     (2)
    │   └── OutOfMemoryError   a training plan that does not fit its GPUs         (2)
    ├── TraceError             a trace that is unreadable or contradicts itself   (1)
    ├── CollectiveError        a collective that no schedule can serve            (1)
    ├── DeadlockError          the clock ran dry while tasks still waited         (1)
    └── FaultError             an event that the run does not survive             (1)
        ├── PartitionError     links are down, and ranks are cut off from each other (1)
        └── RankLostError      a rank is lost and not replaced                    (1)

A message says *what* is wrong, *where* (file, rank, node, key), what was expected, the nearest valid names, and how to
mend it. The library raises; only the command line prints and exits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class DistsimError(Exception):
    """Base of every refusal.

    Args:
        what: one sentence: what is wrong.
        where: the place: file, rank, node, key (prefixed to the message).
        expected: what would have been right.
        near: nearest valid names.
        fix: what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", expected: str = "", near: Iterable[str] = (), fix: str = "") -> None:
        self.what, self.where, self.expected, self.near, self.fix = what, where, expected, tuple(near), fix
        text = f"{where}: {what}" if where else what
        more = []
        if expected:
            more.append(f"Expected {expected}.")
        if self.near:
            more.append(f"Nearest: {', '.join(self.near)}.")
        if fix:
            more.append(fix)
        super().__init__(text + ("\n  " + " ".join(more) if more else ""))


class ConfigError(DistsimError):
    """An option, a file or a spec that cannot be used as given."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """A name that nothing is registered under; the message offers the nearest ones.

    ``fix``: where the list of all is to be had: it is left out of the message then, if any name is near.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "", fix: str = "") -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        listed = bool(known) and not (fix and near)
        expected = f"one of {', '.join(known)}" if listed else ""
        super().__init__(f"unknown {kind} {name!r}", where=where, near=near, expected=expected, fix=fix)


class TopologyError(ConfigError):
    """A topology that is malformed, too small for its job, or leaves hosts unreachable."""


class OutOfMemoryError(ConfigError):
    """A plan that needs more memory than the GPU has. stage: the fullest one; term: its largest; over: bytes too many."""

    def __init__(self, what: str, *, where: str = "", stage: int, term: str, over: int, fix: str = "") -> None:
        self.stage, self.term, self.over = stage, term, over
        super().__init__(what, where=where, fix=fix)


class TraceError(DistsimError):
    """A trace that cannot be read, or that contradicts itself."""


class CollectiveError(DistsimError):
    """A collective that its algorithm cannot serve, or that its ranks disagree on."""


class DeadlockError(DistsimError):
    """Nothing can happen any more, yet tasks wait: the message names who waits for whom."""


class FaultError(DistsimError):
    """An event that the run does not survive. ``partial``: the Result up to there, once the run has put it there."""

    partial: Any = None


class PartitionError(FaultError):
    """Links are down, and hosts that have to talk are cut off from each other; the message names their ranks."""


class RankLostError(FaultError):
    """A rank is lost and not replaced; the message names it."""
