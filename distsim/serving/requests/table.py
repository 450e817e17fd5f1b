"""Requests in columns: what a service is asked, before anything is simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """n requests in order of arrival. Row numbers are the requests' identities in every result.

    hashes: by row, one number per full block of ``hash_block`` tokens of the prompt; equal numbers are equal content *with
    equal content before it* (a chain), so a prefix is shared exactly as far as the numbers agree. A row may go on beyond the
    prompt: those blocks name what will be generated, which later turns of a session repeat. No row (or an empty one):
    nothing shared.
    session: requests of one conversation have one number, -1 for none; they should go where their prefix is.
    deadline: ps after arrival at which the client gives up, 0 for never.
    after, think: row of the turn of the same session that comes before this one, -1 for none; the client answers ``think`` ps
    after that turn's completion. A row with a predecessor arrives at max(arrival, completion + think): its ``arrival`` is only
    the earliest time (deadlines count from when it truly arrives).
    names: what tenants are called; ``tenant`` indexes it.
    """

    arrival: NDArray[np.int64]  #: ps, ascending
    prompt: NDArray[np.int64]  #: tokens, at least 1
    output: NDArray[np.int64]  #: tokens, at least 1; the first is emitted by the end of the prefill
    tenant: NDArray[np.int32]
    session: NDArray[np.int64]
    priority: NDArray[np.int32]  #: smaller goes first
    hashes: Mapping[int, Sequence[int]] = field(default_factory=dict)
    hash_block: int = 16
    names: tuple[str, ...] = ("",)
    source: str = ""  #: for people: file or generator, with its options
    warnings: tuple[str, ...] = ()  #: what was mended or left out while reading
    deadline: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    after: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    think: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        """Columns left out get their defaults."""
        for name, default in (("deadline", 0), ("after", -1), ("think", 0)):
            if len(getattr(self, name)) != len(self.arrival):
                object.__setattr__(self, name, np.full(len(self.arrival), default, np.int64))

    def __len__(self) -> int:
        return len(self.arrival)


def requests_of(
    arrival: NDArray[np.int64], prompt: NDArray[np.int64], output: NDArray[np.int64], *,
    tenant: NDArray[np.int32] | None = None, session: NDArray[np.int64] | None = None,
    priority: NDArray[np.int32] | None = None, hashes: Mapping[int, Sequence[int]] | None = None, hash_block: int = 16,
    names: tuple[str, ...] = ("",), source: str = "", warnings: tuple[str, ...] = (),
    deadline: NDArray[np.int64] | None = None, after: NDArray[np.int64] | None = None, think: NDArray[np.int64] | None = None,
) -> Requests:  # fmt: skip
    """A checked table. Raises ConfigError naming the first row that is out of order, has no token or follows a later row."""
    n = len(arrival)
    extra = {"tenant": tenant, "session": session, "priority": priority, "deadline": deadline, "after": after, "think": think}
    for what, given in extra.items():
        if given is not None and len(given) != n:
            raise ConfigError(f"{len(given)} values of {what} for {n} arrivals", where=source)
    for what, column in (("prompt", prompt), ("output", output)):
        if len(column) != n:
            raise ConfigError(f"{len(column)} {what} lengths for {n} arrivals", where=source)
        if n and int(column.min()) < 1:
            row = int(np.argmin(column))
            raise ConfigError(f"request {row} has {int(column[row])} {what} tokens", where=source, expected="at least 1")
    if n and int(arrival[0]) < 0:
        raise ConfigError(f"request 0 arrives at {int(arrival[0])} ps", where=source, expected="times from 0 on")
    back = np.flatnonzero(np.diff(arrival) < 0)
    if len(back):
        row = int(back[0]) + 1
        raise ConfigError(
            f"request {row} arrives before request {row - 1}", where=source, expected="requests in order of arrival",
            fix="Sort the file by time of arrival, or read it with order=sort.",
        )  # fmt: skip
    for what, given in (("deadline", deadline), ("think", think)):
        if given is not None and n and int(given.min()) < 0:
            raise ConfigError(f"request {int(np.argmin(given))} has a negative {what}", where=source)
    if after is not None:
        wrong = np.flatnonzero((after < -1) | (after >= np.arange(n)))
        if len(wrong):
            row = int(wrong[0])
            raise ConfigError(
                f"request {row} follows request {int(after[row])}", where=source, expected="an earlier row, or -1 for none"
            )
    return Requests(
        np.asarray(arrival, np.int64), np.asarray(prompt, np.int64), np.asarray(output, np.int64),
        np.zeros(n, np.int32) if tenant is None else np.asarray(tenant, np.int32),
        np.full(n, -1, np.int64) if session is None else np.asarray(session, np.int64),
        np.zeros(n, np.int32) if priority is None else np.asarray(priority, np.int32),
        {} if hashes is None else hashes, hash_block, names, source, warnings,
        *(np.empty(0, np.int64) if given is None else np.asarray(given, np.int64) for given in (deadline, after, think)),
    )  # fmt: skip
