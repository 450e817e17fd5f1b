"""A request inside a service, while it is simulated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distsim.serving.cohort import Cohort

#: a time that has not come
NEVER = -1


class Request:
    """One request.

    States: waiting (in a queue) -> prefilling (parts of the prompt are computed) -> generating (in a cohort) -> finished.
    A preempted or failed-over request waits again and computes everything anew; one that is dropped ends with a ``reason``.

    prefill: tokens to compute before the next token comes out: the prompt; after a preemption the prompt and all that had
    been generated. computed: tokens whose keys and values are in the cache. left: tokens still to come out. The prefill's end
    emits a token; every further iteration computes the last one and emits the next.

    NOTE: while ``cohort`` is set, computed and left are relative to the cohort's count of steps; Cohort.computed(request) and
    Cohort.left(request) tell the true ones. A cohort of a hundred requests advances by one addition, not by two hundred.

    Times are ps, NEVER until they come.
    """

    __slots__ = (
        "arrival", "blocks", "cached", "cohort", "completed", "computed", "deadline", "first", "handoff", "hashes", "held",
        "lane", "left", "output", "prefill", "priority", "prompt", "reason", "replica", "restarts", "row", "scheduled",
        "serial", "session", "tenant",
    )  # fmt: skip

    def __init__(
        self, row: int, arrival: int, prompt: int, output: int, tenant: int = 0, session: int = -1, priority: int = 0,
        hashes: Sequence[int] = (), deadline: int = 0,
    ) -> None:  # fmt: skip
        self.row = row
        self.arrival = arrival
        self.prompt = self.prefill = prompt
        self.output = self.left = output
        self.tenant = tenant
        self.session = session
        self.priority = priority
        self.hashes = hashes  #: of full blocks, see Requests.hashes
        self.deadline = deadline
        self.computed = 0
        self.blocks = 0  #: KV blocks it holds
        self.held: list[Any] | None = None  #: hashes of the blocks it holds that others may share (prefix cache)
        self.cohort: Cohort | None = None
        self.serial = 0
        self.scheduled = self.first = self.completed = NEVER
        self.restarts = 0
        self.cached = 0  #: prompt tokens that a prefix cache held at its first admission
        #: prefill only: it leaves its replica with its first token, which keeps its keys and values until they have been sent
        self.handoff = False
        self.lane = 0  #: attention data parallel rank of its replica
        self.replica = -1  #: the last that it was sent to
        self.reason = ""  #: why it was dropped

    def restart(self) -> None:
        """Preempted while generating (and out of its cohort): what came out becomes part of what is to be computed."""
        if self.computed >= self.prefill:
            self.prefill = self.computed + 1
        self.computed = 0
        self.restarts += 1

    def lose(self, anew: bool) -> None:
        """Its replica has failed, with all that it held there. What came out becomes part of what is to be computed; ``anew``:
        that is lost too, the client asks from the beginning."""
        cohort = self.cohort
        if cohort is not None:
            self.computed += cohort.steps
            self.left -= cohort.steps
            self.cohort = None
        if cohort is not None or self.blocks or self.computed:
            self.restart()
        self.blocks = 0
        self.held = None
        if anew:
            self.prefill, self.left, self.first = self.prompt, self.output, NEVER

    def __repr__(self) -> str:
        return f"Request({self.row}: {self.computed}/{self.prefill} computed, {self.left} left)"
