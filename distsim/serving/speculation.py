"""Speculative decoding: a cheap draft proposes tokens, the model checks them in one iteration, the right ones count.

Of ``tokens`` drafted ones each is accepted with the same probability a, one by one until the first that is not; the model's own
next token comes with them. So an iteration yields (1 - a^(tokens + 1)) / (1 - a) tokens on average. It computes tokens + 1 rows
per sequence, and needs KV cache for all of them; what was rejected is overwritten. The draft takes ``cost`` of an iteration
that only generates, with the same sequences, for every token that it proposes; what it computes of prompts and its memory are
left out.

- ``draft:tokens=4,acceptance=0.7,cost=0.1``: a small model of its own.
- ``mtp:tokens=1,acceptance=0.8``: a head of the model itself (multi-token prediction); its cost is that of one layer.

Source: Leviathan, Kalman, Matias, "Fast inference from transformers via speculative decoding" (ICML 2023), equation 1 and
theorem 3.8 (cost: their c); DeepSeek-V3 technical report (2024), section 2.2 (MTP).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from distsim.errors import UnknownNameError
from distsim.params import Count, Parameters, parse, validated
from distsim.serving.cohort import Cohort
from distsim.serving.iteration import IterationTimes, Shape
from distsim.serving.request import Request
from distsim.serving.seeds import stream


class DraftParams(Parameters):
    """Options of ``draft:...``."""

    tokens: Count = Field(4, description="tokens proposed per iteration")
    acceptance: float = Field(
        ge=0, le=1, examples=[0.7], description="probability that a proposed token is right, if those before it are"
    )
    cost: float = Field(0.1, ge=0, description="time of proposing a token, as a share of an iteration that only generates")
    seed: int = Field(0, ge=0, description="of the draws, which are per request")


class MtpParams(DraftParams):
    """Options of ``mtp:...``."""

    tokens: Count = Field(1, description="tokens proposed per iteration")
    cost: float = Field(0.0, ge=0, description="as of draft; 0: one layer of the model")


def speculation_of(text: str, layers: int) -> DraftParams:
    """What ``text`` asks for; layers: of the model. Raises UnknownNameError, ConfigError."""
    name, options = parse(text)
    kinds: dict[str, type[DraftParams]] = {"draft": DraftParams, "mtp": MtpParams}
    if name not in kinds:
        raise UnknownNameError("speculation", name, kinds)
    params = validated(kinds[name], name, options)
    return params.model_copy(update={"cost": 1 / layers}) if name == "mtp" and not params.cost else params


class Acceptance:
    """How many tokens come out of each iteration of a request: a function of the request and of how many it has still to emit,
    so that neither the order of requests nor a preemption changes it."""

    def __init__(self, params: DraftParams, *name: str | int) -> None:
        """name: of whose draws these are."""
        self.tokens = params.tokens
        self.rate = params.acceptance
        self._stream = (params.seed, "speculation", *name)
        self._drawn: dict[int, Sequence[int]] = {}
        self.steps = self.came = 0  #: iterations of single sequences, and tokens that came out of them

    def __deepcopy__(self, memo: object) -> Acceptance:
        """Draws are a function of the request, so that copies of a scheduler share them, and the counts."""
        return self

    def emitted(self, row: int, left: int, output: int) -> int:
        """Tokens that request ``row`` emits next, ``left`` of its ``output`` before; no more than those."""
        drawn = self._drawn.get(row)
        if drawn is None:
            drawn = self._drawn[row] = self._draw(row, output)
        return min(drawn[left], left)

    def forget(self, row: int) -> None:
        """A request is done."""
        self._drawn.pop(row, None)

    def _draw(self, row: int, output: int) -> Sequence[int]:
        seed, *name = self._stream
        rng = stream(int(seed), *name, row)
        if self.rate >= 1:
            return [self.tokens + 1] * (output + 1)
        right: list[int] = (rng.geometric(1 - self.rate, output + 1) - 1).tolist()
        return [min(count, self.tokens) + 1 for count in right]


class SpeculativeCohort(Cohort):
    """Generating requests that each emit one token or more per iteration: as many as its Acceptance draws.

    Counts of members are their own here (``steps`` stays 0), and ``Request.blocks`` is what they hold: blocks for every token
    that an iteration may keep are taken before it, and stay.
    """

    __slots__ = ("_acceptance", "width")

    def __init__(self, block: int, acceptance: Acceptance) -> None:
        super().__init__(block)
        self._acceptance = acceptance
        self.width = acceptance.tokens + 1

    def like(self) -> Cohort:
        """See Cohort."""
        return SpeculativeCohort(self.block, self._acceptance)

    def add(self, request: Request) -> None:
        """See Cohort."""
        self.kv += request.computed
        self._longest = None
        self._serial += 1
        request.serial = self._serial
        request.cohort = self
        self._sorted = not self.members
        self.members.append(request)

    def begins(self, request: Request) -> int:
        """See Cohort: no more tokens are looked at than the request has still to emit."""
        if not self.block:
            return 0
        return max(0, -(-(request.computed + min(self.width, request.left)) // self.block) - request.blocks)

    def growth(self) -> int:
        """See Cohort."""
        return sum(map(self.begins, self.members)) if self.block else 0

    def grown(self, count: int) -> int:
        """See Cohort: nobody knows beyond the next iteration."""
        return 0

    def until_end(self) -> int:
        """See Cohort: stepped, since anyone may be done after any iteration."""
        return 1

    def advance(self, count: int) -> list[Request]:
        """See Cohort; ``count`` is 1."""
        assert count == 1
        done = []
        came = 0
        self._acceptance.steps += len(self.members)
        for request in self.members:
            request.blocks += self.begins(request)
            emitted = self._acceptance.emitted(request.row, request.left, request.output)
            request.computed += emitted
            request.left -= emitted
            self.kv += emitted
            came += emitted
            if not request.left:
                done.append(request)
                self._acceptance.forget(request.row)
        self._acceptance.came += came
        self._longest = None
        for request in done:
            self.remove(request)
        return done

    def _leave(self, request: Request) -> None:
        request.cohort = None
        self.kv -= request.computed
        self._longest = None


class SpeculativeTimes:
    """Iteration times with a draft: the model checks all tokens of every sequence, then the draft proposes the next, on the
    last stage."""

    def __init__(self, times: Any, params: DraftParams) -> None:
        """times: of the model alone; of lanes too, where it knows them."""
        self.stages: int = times.stages
        self._times: IterationTimes = times
        self._lanes = times
        self._width = params.tokens + 1
        self._share = params.tokens * params.cost

    def times(self, shape: Shape) -> tuple[int, ...]:
        """See IterationTimes."""
        model = self._times.times(shape)
        if not shape.sequences:
            return model
        if self.stages == 1:
            alone, _ = self._times.steady(shape.sequences, shape.kv, shape.longest)
        else:
            alone = sum(self._times.times(Shape((), shape.sequences, shape.kv, shape.longest, shape.sequences)))
        return (*model[:-1], model[-1] + round(alone * self._share))

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        """See IterationTimes: lengths grow unevenly, so one iteration at a time."""
        return sum(self.times(Shape((), sequences, kv, longest, sequences * self._width, self._width))), 1

    def group_times(self, shapes: Sequence[Shape | None]) -> tuple[int, ...]:
        """See distsim.serving.lanes.LaneTimes."""
        model: tuple[int, ...] = self._lanes.group_times(shapes)
        drafts = [
            None if one is None or not one.sequences else Shape((), one.sequences, one.kv, one.longest, one.sequences)
            for one in shapes
        ]
        if not any(drafts):
            return model
        return (*model[:-1], model[-1] + round(sum(self._lanes.group_times(drafts)) * self._share))

    def group_steady(self, lanes: Sequence[tuple[int, int, int] | None]) -> tuple[int, int]:
        """See distsim.serving.lanes.LaneTimes."""
        width = self._width
        shapes = [None if one is None else Shape((), *one, one[0] * width, width) for one in lanes]
        return sum(self.group_times(shapes)), 1
