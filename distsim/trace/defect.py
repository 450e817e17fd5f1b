"""What can be wrong with a trace, as data: found once, then listed, repaired or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distsim.errors import TraceError


@dataclass(frozen=True, slots=True)
class Defect:
    """One finding.

    ``severity`` "error": the trace cannot be replayed as it stands; "warning": it can, but something in it is odd or will
    only matter to some runs. ``--strict`` refuses both.
    """

    kind: str  #: dangling, cycle, duplicate, type, negative, collective, message, group, missing
    what: str  #: one sentence, with rank, node id and name
    where: str = ""  #: file
    severity: str = "error"
    near: tuple[str, ...] = ()
    fix: str = ""
    repaired: bool = False

    def error(self, more: int = 0) -> TraceError:
        """This defect as an exception; ``more`` others are mentioned."""
        fix = self.fix
        if more:
            fix = (fix + " " if fix else "") + f"There {'is 1 more defect' if more == 1 else f'are {more} more defects'}."
        near = self.near
        if near and self.kind == "dangling":
            return TraceError(self.what, where=self.where, fix=f"Nearest ids: {', '.join(near)}. {fix}".strip())
        return TraceError(self.what, where=self.where, near=near, fix=fix)

    def line(self) -> str:
        """One line for a list."""
        near = f" (nearest: {', '.join(self.near)})" if self.near else ""
        return f"{self.kind}: {self.what}{near}{' - repaired' if self.repaired else ''}"


def refuse(defects: Sequence[Defect], strict: bool) -> None:
    """Raise the first defect that forbids a replay (with ``strict``: the first of all)."""
    grave = [d for d in defects if strict or (d.severity == "error" and not d.repaired)]
    if grave:
        raise grave[0].error(len(grave) - 1)
