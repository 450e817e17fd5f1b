"""The one front door to requests: a file, or an arrival process and a law of lengths.

>>> table = requests("poisson:qps=4", lengths="zipf:theta=1,prompt=100-4000,output=10-500", n=100)
>>> len(table)
100

``requests("azure_conv.csv", qps=4)`` replays a file, whose format is seen from its columns; ``azure:file=conv.csv,stretch=4``
names the format. What is drawn depends on the seed only, arrivals, lengths and sessions each on a stream of their own: other
lengths keep the arrivals, more requests begin with the same ones, and another load scales the same gaps.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from distsim.errors import ConfigError, UnknownNameError
from distsim.params import Count, Parameters, parse, text_of, validated
from distsim.registry import lookup, names
from distsim.serving.durations import Duration
from distsim.serving.requests.process import ArrivalProcess, Rate
from distsim.serving.requests.ranges import Lengths, TokenCount, Tokens
from distsim.serving.requests.sessions import Limits, SessionParameters, requests_of_sessions
from distsim.serving.requests.table import Requests, requests_of
from distsim.serving.requests.trace import (
    Factor,
    Order,
    ReplayParameters,
    Rows,
    Zero,
    ordered,
    read_rows,
    requests_from,
    windowed,
    without_zeros,
)  # fmt: skip
from distsim.units import format_time, parse_time

_REPLAY = ("stretch", "start", "order", "zero")


class RequestsSpec(Parameters):
    """Requests as a run's YAML and the command line name them; every option has the same name in both."""

    requests: str = Field(description="a file, format:file=FILE,..., or an arrival process such as poisson:qps=4")
    arrivals: str | None = Field(None, description="an arrival process for a file's lengths")
    lengths: str | None = Field(None, description="a law of lengths, such as lognormal:...; for a file: instead of its own")
    sessions: str | None = Field(None, description="turns, shared prefixes: turns=4,think=10s,prefixes=8,prefix_tokens=512")
    n: Count | None = Field(None, description="number of requests; of a file: the first so many")
    duration: Duration | None = Field(None, description="of arrivals; of a file: of the trace, before it is stretched")
    qps: Rate | None = Field(None, description="mean requests per second, whatever the spec says; of sessions: sessions")
    stretch: Factor | None = Field(None, description="file: multiplies times between arrivals")
    start: Duration | None = Field(None, description="file: leave out what arrives earlier")
    order: Order | None = Field(None, description="file: rows out of order: error (default) or sort")
    zero: Zero | None = Field(None, description="file: rows with 0 tokens: clamp (default), drop or error")
    max_prompt: TokenCount | None = Field(None, description="longer prompts are clamped, counted in a warning")
    max_output: TokenCount | None = Field(None, description="longer answers are clamped, likewise")
    max_total: Annotated[int, Field(ge=2)] | None = Field(None, description="prompt and answer together; answers yield first")
    tenant: str | None = Field(None, description="whose they all are")
    priority: int | None = Field(None, description="of all; smaller goes first")
    deadline: Duration | None = Field(None, description="after arrival: the client gives up")
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.stretch is not None and self.qps is not None:
            raise ValueError("stretch and qps both say how fast arrivals come")
        return self

    def read(self) -> Requests:
        """The requests. Raises ConfigError (UnknownNameError) on a spec that cannot be used, in words."""
        name, options, role = _parsed(self.requests)
        if name is not None and role == "arrivals":
            table = self._generated(name, options)
        else:
            table = self._replayed(name, options)
        return self._owned(table)

    def _generated(self, name: str, options: dict[str, str]) -> Requests:
        for option in (*_REPLAY, "arrivals"):
            if getattr(self, option) is not None:
                raise ConfigError(f"{option} is for files of requests", where=self.requests)
        if self.lengths is None:
            raise ConfigError(
                "nothing says how long the requests are", where=self.requests,
                fix="Give lengths, such as --lengths fixed:prompt=1024,output=128.",
            )  # fmt: skip
        process = self._process(name, options)
        if self.n is None and self.duration is None:
            raise ConfigError("nothing says how many requests there are", where=self.requests, fix="Give n or a duration.")
        until = None if self.duration is None else parse_time(self.duration)
        law, mended = _lengths(self.lengths)
        source = f"{self.requests}" + ("" if self.qps is None else f" at {self.qps:g}/s") + f", {self.lengths}"
        if self.sessions is not None:
            params = _sessions(self.sessions)
            limits = Limits(self.max_prompt, self.max_output, self.max_total)
            table = requests_of_sessions(
                params, process, law, n=self.n, until=until, seed=self.seed, limits=limits,
                source=f"{source}, sessions {self.sessions}, seed {self.seed}",
            )  # fmt: skip
            table = replace(table, warnings=(*mended, *table.warnings))
        else:
            arrivals, lengths = _streams(self.seed)
            times = process.times(self.n, until, arrivals)
            prompt, output, clamped = self._clamped(*law.pairs(len(times), lengths))
            table = requests_of(times, prompt, output, source=f"{source}, seed {self.seed}", warnings=(*mended, *clamped))
        if not len(table):
            raise ConfigError(
                f"no request arrives in {format_time(until or 0)}", where=self.requests, fix="Raise the rate or the duration."
            )
        return table

    def _replayed(self, name: str | None, options: dict[str, str]) -> Requests:
        if self.sessions is not None:
            raise ConfigError("sessions are generated, not read from a file", where=self.requests)
        given = {option: getattr(self, option) for option in (*_REPLAY, "duration")} | {"limit": self.n}
        given = {option: value for option, value in given.items() if value is not None}
        twice = sorted(set(given) & set(options))
        if twice:
            raise ConfigError(f"{twice[0]} is given twice", where=self.requests, expected="in the spec or beside it")
        model = ReplayParameters if name is None else lookup("requests", name).Params
        params: ReplayParameters = validated(model, name or "requests", {**options, **given})
        if self.qps is not None:
            params = params.model_copy(update={"qps": self.qps, "stretch": None})
        elif params.qps is not None and params.stretch is not None:
            raise ConfigError("stretch and qps both say how fast arrivals come", where=self.requests, expected="one of them")
        rows = without_zeros(read_rows(params.file, name), params.zero)
        if self.arrivals is not None:
            rows, params = self._timed(rows, params)
        elif rows.arrival is None:
            raise ConfigError(
                "has lengths and no arrivals", where=params.file, fix="Give arrivals, such as --arrivals poisson:qps=4."
            )
        rows = windowed(ordered(rows, params.order), params)
        if self.n is not None and self.n > len(rows):
            rows = rows.warned(f"{params.file}: {len(rows)} requests of the {self.n} asked for")
        mended: tuple[str, ...] = ()
        if self.lengths is not None:
            law, mended = _lengths(self.lengths)
            prompt, output = law.pairs(len(rows), _streams(self.seed)[1])
            rows = replace(rows, prompt=prompt, output=output, hashes={})
            mended = (*mended, f"{params.file}: lengths and prefixes are not its own, but of {self.lengths}")
        prompt, output, clamped = self._clamped(rows.prompt, rows.output)
        # numbers beyond a clamped prompt name what no longer follows it
        hashes = {
            row: numbers if prompt[row] == rows.prompt[row] and output[row] == rows.output[row] else
            numbers[: int(prompt[row]) // rows.hash_block] for row, numbers in rows.hashes.items()
        }  # fmt: skip
        return requests_from(replace(rows, prompt=prompt, output=output, hashes=hashes).warned(*mended, *clamped), params)

    def _timed(self, rows: Rows, params: ReplayParameters) -> tuple[Rows, ReplayParameters]:
        """The file's rows, as many as are wanted, at times of the process."""
        for option in ("stretch", "start", "order"):
            if option in params.model_fields_set and getattr(params, option) is not None:
                raise ConfigError(f"{option} is for a file's own arrivals", where=self.requests)
        name, options, role = _parsed(self.arrivals or "")
        if role != "arrivals":
            raise UnknownNameError("arrivals", name or self.arrivals or "", names("arrivals"))
        process = self._process(name or "", options)
        until = None if params.duration is None else parse_time(params.duration)
        times = process.times(min(params.limit or len(rows), len(rows)), until, _streams(self.seed)[0])
        if not len(times):
            raise ConfigError(f"no request arrives in {format_time(until or 0)}", where=self.arrivals or "")
        rows = replace(rows.take(np.arange(len(times))), arrival=times)
        return rows, params.model_copy(update={"qps": None, "duration": None})

    def _process(self, name: str, options: dict[str, str]) -> ArrivalProcess:
        component = lookup("arrivals", name)
        process: ArrivalProcess = component(validated(component.Params, name, options))
        return process if self.qps is None else process.at(self.qps)

    def _clamped(self, prompt: Tokens, output: Tokens) -> tuple[Tokens, Tokens, tuple[str, ...]]:
        """Lengths within the limits, and a warning that counts what was clamped."""
        longest = self.max_total or 1 << 62
        text = np.minimum(prompt, min(self.max_prompt or 1 << 62, longest - 1))
        answer = np.minimum(np.minimum(output, self.max_output or 1 << 62), longest - text)
        count = int(((text != prompt) | (answer != output)).sum())
        limits = {name: getattr(self, name) for name in ("max_prompt", "max_output", "max_total")}
        warning = f"{count} requests are clamped to {text_of('', limits).removeprefix(':')}"
        return text, answer, (warning,) if count else ()

    def _owned(self, table: Requests) -> Requests:
        """The columns that the spec gives to all rows. Raises ConfigError where the file has its own tenants."""
        changes: dict[str, Any] = {}
        if self.tenant is not None:
            if table.names not in (("",), (self.tenant,)):
                raise ConfigError(
                    f"the file has tenants of its own: {', '.join(table.names[:5])}", where=self.requests, expected="no tenant"
                )
            changes["names"] = (self.tenant,)
        if self.priority is not None:
            changes["priority"] = np.full(len(table), self.priority, np.int32)
        if self.deadline is not None:
            changes["deadline"] = np.full(len(table), parse_time(self.deadline), np.int64)
        return replace(table, **changes) if changes else table


def requests(spec: str, **options: Any) -> Requests:
    """Requests of a spec: see RequestsSpec for the options. Raises ConfigError on what cannot be used."""
    return validated(RequestsSpec, "requests", {"requests": spec, **options}).read()


def _streams(seed: int) -> Sequence[np.random.Generator]:
    """One generator for arrivals, one for lengths."""
    return [np.random.default_rng(one) for one in np.random.SeedSequence(seed).spawn(2)]


def _parsed(spec: str) -> tuple[str | None, dict[str, str], str]:
    """(name, options, role): an arrival process, a format, or (None, {"file": ...}) for a file of a format to be seen."""
    if os.path.exists(spec):
        return None, {"file": spec}, "requests"
    head, colon, _ = spec.partition(":")
    head = head.strip()
    for role in ("arrivals", "requests"):
        if head in names(role):
            return *parse(spec), role
    if colon and os.path.exists(head):
        return None, {"file": head, **parse(spec)[1]}, "requests"
    if os.sep in head or "." in head:
        folder = os.path.dirname(head) or "."
        near = difflib.get_close_matches(os.path.basename(head), os.listdir(folder) if os.path.isdir(folder) else [], n=3)
        raise ConfigError("no such file of requests", where=head, near=near)
    known = [*names("arrivals"), *(f"{one}:file=..." for one in names("requests"))]
    near = difflib.get_close_matches(head, [*names("arrivals"), *names("requests")], n=3, cutoff=0.5)
    raise ConfigError(
        f"unknown requests {head!r}", near=near, expected=f"a file, or one of {', '.join(known)}",
    )  # fmt: skip


def _lengths(spec: str) -> tuple[Lengths, tuple[str, ...]]:
    name, options = parse(spec)
    component = lookup("lengths", name)
    law: Lengths = component(validated(component.Params, name, options))
    return law, tuple(getattr(law, "warnings", ()))


def _sessions(spec: str) -> SessionParameters:
    named = spec if spec.partition(":")[0].strip() == "sessions" else f"sessions:{spec}"
    return validated(SessionParameters, *parse(named))
