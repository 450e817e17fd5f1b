"""Conversations: requests that share prefixes, and turns that repeat all that was said before.

A session begins at a time of the arrival process (so ``qps`` counts sessions), with one of ``prefixes`` shared system prompts.
Each turn's prompt is the prefix, the history (earlier texts *and answers*) and a new text; the law of lengths draws (new text,
answer). Blocks are numbered accordingly, beyond each prompt through its answer.

A turn follows the one before it by a think time (gamma, mean ``think``, ``think_cv`` 1: exponential) after its answer ended:
closed within a session, open over sessions. With ``answer=25ms`` (per output token) turns come at fixed times instead, as if
every answer took that long, so that the load does not yield to a slow service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from distsim.errors import ConfigError
from distsim.params import Count, Parameters
from distsim.serving.durations import Duration
from distsim.serving.requests.lengths.zipf import zipf_ranks
from distsim.serving.requests.process import MOST, ArrivalProcess
from distsim.serving.requests.ranges import Lengths, Range, bounds
from distsim.serving.requests.table import Requests, requests_of
from distsim.units import parse_time

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
#: tokens of a block, as most servers have them
BLOCK = 16


class SessionParameters(Parameters):
    """``turns=4,think=10s,prefixes=8,prefix_tokens=512``."""

    turns: Annotated[float, Field(ge=1, le=1000)] = Field(1.0, description="mean turns of a session")
    spread: Literal["geometric", "fixed"] = Field("geometric", description="law of the number of turns, from 1 on")
    think: Duration = Field("10s", description="mean time from an answer's end to the next turn")
    think_cv: Annotated[float, Field(ge=0, le=10)] = Field(1.0, description="its variation; 1 is exponential, 0 constant")
    answer: Duration | None = Field(None, description="time per output token that is taken for granted; turns then do not wait")
    prefixes: Annotated[int, Field(ge=0, le=1_000_000)] = Field(0, description="system prompts that sessions share")
    prefix_tokens: Range = Field("512", description="their lengths, MIN-MAX or one number")
    prefix_theta: Annotated[float, Field(ge=0, le=10)] = Field(1.0, description="Zipf skew of their popularity; 0: all alike")
    block: Count = Field(BLOCK, description="tokens per numbered block")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.spread == "fixed" and not float(self.turns).is_integer():
            raise ValueError("a fixed number of turns is whole")
        return self


@dataclass(frozen=True, slots=True)
class Limits:
    """Longest prompt, answer and both together, tokens; None: no limit."""

    prompt: int | None = None
    output: int | None = None
    total: int | None = None


class SessionBlocks(Mapping[int, Sequence[int]]):
    """Numbers of every row's blocks: those within its shared prefix, then its session's own; made when a row is asked for."""

    def __init__(self, shared: Ints, shared_count: Ints, own: Ints, own_count: Ints) -> None:
        self._columns = (shared, shared_count, own, own_count)

    def __getitem__(self, row: int) -> list[int]:
        if not 0 <= row < len(self):
            raise KeyError(row)
        shared, shared_count, own, own_count = (int(column[row]) for column in self._columns)
        return [*range(shared, shared + shared_count), *range(own, own + own_count)]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self._columns[0])


@dataclass(frozen=True, slots=True)
class Turns:
    """Turns of whole sessions, session by session. prefix: tokens of the session's system prompt, which is number ``which``."""

    session: Ints
    turn: Ints  #: from 0
    arrival: Ints
    think: Ints
    new: Ints
    prompt: Ints
    output: Ints
    which: Ints
    prefix: Ints
    clamped: Flags  #: a first turn that was too long
    ended: Flags  #: the last turn before one that would have been too long


def requests_of_sessions(
    params: SessionParameters, arrivals: ArrivalProcess, lengths: Lengths, *, n: int | None, until: int | None, seed: int,
    limits: Limits, source: str,
) -> Requests:  # fmt: skip
    """The first n turns in order of (earliest) arrival, those before ``until``, or both. Raises ConfigError."""
    sessions = None if n is None else max(int(1.1 * n / params.turns) + 16, 1)
    while True:
        turns = _turns(params, arrivals, lengths, sessions, until, seed, limits)
        order = np.argsort(turns.arrival, kind="stable")
        last_start = int(turns.arrival[np.flatnonzero(turns.turn == 0)[-1]]) if len(order) else 0
        # NOTE: the first n turns are certain once a session begins after them; fewer sessions draw the same numbers
        whole = n is None or (len(order) >= n and int(turns.arrival[order[n - 1]]) <= last_start)
        if whole or (sessions is not None and n is not None and sessions >= n):
            break
        if (int(turns.session[-1]) + 1 if len(order) else 0) < (sessions or 0):
            break  # ``until`` ends the arrivals
        sessions = min(2 * (sessions or 1), n or 1)
    if until is not None:
        order = order[turns.arrival[order] < until]
    return _table(params, turns, order if n is None else order[:n], source)


def _turns(
    params: SessionParameters, arrivals: ArrivalProcess, lengths: Lengths, sessions: int | None, until: int | None, seed: int,
    limits: Limits,
) -> Turns:  # fmt: skip
    """Whole sessions. Every kind of draw has a stream of its own, so that more sessions begin with the same ones."""
    rngs = [np.random.default_rng(one) for one in np.random.SeedSequence(seed).spawn(6)]
    start = arrivals.times(sessions, until, rngs[0])
    count = len(start)
    turns = rngs[2].geometric(1 / params.turns, count) if params.spread == "geometric" else np.full(count, int(params.turns))
    if int(turns.sum()) > MOST:
        raise ConfigError(f"more than {MOST:,} turns", where="sessions", fix="Lower the rate, the duration or the turns.")
    first = np.cumsum(turns) - turns
    session = np.repeat(np.arange(count), turns)
    turn = np.arange(len(session)) - first[session]
    new, output = lengths.pairs(len(session), rngs[1])
    which, prefix = _prefixes(params, count, rngs[3], rngs[4])
    which, prefix = which[session], prefix[session]
    new, output, clamped = _clamped(new, output, prefix, turn, limits)
    said = np.cumsum(new + output) - (new + output)
    prompt = prefix + said - said[first][session] + new
    think = _thinks(params, len(session), rngs[5])
    think[turn == 0] = 0
    gap = think.copy()
    if params.answer is not None:
        gap[1:] += np.where(turn[1:] > 0, output[:-1] * parse_time(params.answer), 0)
    since = np.cumsum(gap)  # NOTE: may wrap; differences within a session stay right
    arrival = start[session] + since - since[first][session]
    if len(arrival) and not 0 <= int(arrival.min()) <= int(arrival.max()) < 1 << 62:
        raise ConfigError("turns go beyond 2^62 ps (53 days)", where="sessions", fix="Shorten the thinking or the sessions.")
    long = np.zeros(len(session), np.bool_)
    if limits.prompt is not None:
        long |= prompt > limits.prompt
    if limits.total is not None:
        long |= prompt + output > limits.total
    over = np.cumsum(long)
    kept: Flags = over - (over - long)[first][session] == 0  # up to the first that is too long
    ended = np.zeros(len(session), np.bool_)
    ended[:-1] = kept[:-1] & ~kept[1:] & (turn[1:] > 0)
    columns = (session, turn, arrival, think, new, prompt, output, which, prefix, clamped, ended)
    return Turns(*(column[kept] for column in columns))  # type: ignore[arg-type]


def _clamped(new: Ints, output: Ints, prefix: Ints, turn: Ints, limits: Limits) -> tuple[Ints, Ints, Flags]:
    """New texts and answers within the limits: answers everywhere, texts of first turns (later ones end their session instead).

    Raises ConfigError where a system prompt leaves no room.
    """
    most_output, most_total = limits.output or 1 << 62, limits.total or 1 << 62
    most_prompt = min(limits.prompt or 1 << 62, most_total - 1)
    if len(prefix) and int(prefix.max()) >= most_prompt:
        raise ConfigError(
            f"a shared prefix of {int(prefix.max())} tokens leaves no room for a request", where="sessions",
            expected=f"less than {most_prompt}",
        )  # fmt: skip
    begins = turn == 0
    answer = np.minimum(output, np.where(begins, np.minimum(most_output, most_total - prefix - 1), most_output))
    text = np.where(begins, np.minimum(new, np.minimum(most_prompt, most_total - answer) - prefix), new)
    return text, answer, (text != new) | (answer != output)


def _prefixes(
    params: SessionParameters, sessions: int, popularity: np.random.Generator, sizes: np.random.Generator
) -> tuple[Ints, Ints]:
    """System prompt of every session, -1 for none, and its tokens."""
    if not params.prefixes:
        return np.full(sessions, -1, np.int64), np.zeros(sessions, np.int64)
    tokens = sizes.integers(*bounds(params.prefix_tokens), params.prefixes, endpoint=True)
    which = zipf_ranks(params.prefixes, params.prefix_theta, sessions, popularity)
    return which, tokens[which]


def _thinks(params: SessionParameters, n: int, rng: np.random.Generator) -> Ints:
    mean, cv = parse_time(params.think), params.think_cv
    if not cv:
        return np.full(n, mean, np.int64)
    times: Ints = np.rint(rng.standard_gamma(cv**-2, n) * (mean * cv**2)).astype(np.int64)
    return times


def _table(params: SessionParameters, turns: Turns, order: Ints, source: str) -> Requests:
    """The turns of ``order`` as requests."""
    place = np.full(len(turns.turn) + 1, -1, np.int64)
    place[order] = np.arange(len(order))
    follows = (turns.turn[order] > 0) & (params.answer is None)
    several = params.turns > 1
    warnings = []
    for flags, text in (
        (turns.clamped, "requests are clamped to the longest allowed"),
        (turns.ended, "sessions end early: their next prompt would be too long"),
    ):
        count = int(flags[order].sum())
        if count:
            warnings.append(f"{count} {text}")
    return requests_of(
        turns.arrival[order], turns.prompt[order], turns.output[order], session=turns.session[order] if several else None,
        hashes=_blocks(params, turns, order) if several or params.prefixes else None, hash_block=params.block,
        after=np.where(follows, place[order - 1], -1), think=np.where(follows, turns.think[order], 0), source=source,
        warnings=tuple(warnings),
    )  # fmt: skip


def _blocks(params: SessionParameters, turns: Turns, order: Ints) -> SessionBlocks:
    """Numbers: those of the shared prefixes first, then a stretch for each session, as long as its longest turn."""
    block = params.block
    shared = turns.prefix // block
    own = (turns.prompt + turns.output) // block - shared
    longest = int(shared.max()) if len(shared) else 0
    room = np.zeros(int(turns.session[-1]) + 1 if len(own) else 0, np.int64)
    np.maximum.at(room, turns.session, own)
    begins = longest * params.prefixes + np.cumsum(room) - room
    return SessionBlocks(
        (np.maximum(turns.which, 0) * longest)[order], shared[order], begins[turns.session[order]], own[order]
    )  # fmt: skip
