"""From raw columns, where dependencies are ids, to a :class:`Program`, where they are rows; what does not fit is a Defect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TraceError
from distsim.trace.defect import Defect
from distsim.trace.graph import PeerKind, Program

#: Column of Program -> (dtype, value where nothing is said), in Program's order
COLUMNS: dict[str, tuple[type, Any]] = {
    "id": (np.int64, 0), "type": (np.int8, 0), "dep_ptr": (np.int64, 0), "dep": (np.int32, 0), "name": (np.int32, -1),
    "duration_ps": (np.int64, -1), "start_ps": (np.int64, -1), "num_ops": (np.int64, -1), "tensor_size": (np.int64, -1),
    "cpu": (np.bool_, False), "collective": (np.int8, -1), "bytes": (np.int64, -1), "group": (np.int32, -1),
    "peer": (np.int32, -1), "peer_kind": (np.int8, int(PeerKind.RANK)), "tag": (np.int64, -1), "priority": (np.int32, -1),
    "root": (np.int32, 0), "dims": (np.int32, -1), "stream": (np.int32, -1),
}  # fmt: skip
#: the columns with one entry per node
NODE_COLUMNS = tuple(name for name in COLUMNS if name not in ("dep_ptr", "dep"))

#: dangling dependencies that are described one by one in each program; the rest is counted
_DESCRIBED = 20


@dataclass(slots=True)
class Finding:
    """A defect of one program before it is known which ranks run it."""

    kind: str
    row: int
    text: str  #: continues "node 7 of rank 3 ("name") ..."
    near: tuple[str, ...] = ()


@dataclass(slots=True)
class Rows:
    """A program under construction, in lists: :meth:`add` a node, then :meth:`program`."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in NODE_COLUMNS})
    dep_ptr: list[int] = field(default_factory=lambda: [0])
    dep: list[int] = field(default_factory=list)

    def add(self, deps: Iterable[int], values: Mapping[str, Any]) -> None:
        """A node: ids it depends on, and its columns (those left out hold their missing value)."""
        for name, column in self.columns.items():
            value = values.get(name)
            column.append(COLUMNS[name][1] if value is None else value)
        self.dep.extend(deps)
        self.dep_ptr.append(len(self.dep))

    def program(self, where: str) -> tuple[Program, list[Finding]]:
        """The program, without its dangling dependencies, and what is wrong with its ids.

        Raises:
            TraceError: a number that its column cannot hold; ``where`` is the file.
        """
        self.columns["id"], self.dep = [_signed(i) for i in self.columns["id"]], [_signed(i) for i in self.dep]
        arrays: dict[str, NDArray[Any]] = {}
        for name, column in self.columns.items():
            try:
                arrays[name] = np.array(column, COLUMNS[name][0])
            except OverflowError:
                info = np.iinfo(COLUMNS[name][0])
                row = next(k for k, value in enumerate(column) if not info.min <= value <= info.max)
                what = f"node {self.columns['id'][row]} has {name} {column[row]}, which is too large"
                raise TraceError(what, where=where, expected=f"at most {info.max}") from None
        far = next((k for k, wanted in enumerate(self.dep) if not -(1 << 63) <= wanted < 1 << 63), None)
        if far is not None:
            row = int(np.searchsorted(self.dep_ptr, far, side="right")) - 1
            what = f"node {self.columns['id'][row]} depends on node {self.dep[far]}, which is too large for an id"
            raise TraceError(what, where=where)
        return program_of(arrays, np.array(self.dep_ptr, np.int64), np.array(self.dep, np.int64))


def _signed(number: int) -> int:
    """The id as the 64-bit column holds it (ids are unsigned in files)."""
    return number if number < 1 << 63 else number - (1 << 64)


def program_of(
    columns: Mapping[str, NDArray[Any]], dep_ptr: NDArray[np.int64], dep_ids: NDArray[np.int64]
) -> tuple[Program, list[Finding]]:
    """A Program of node columns and dependencies given as ids. Dangling dependencies are left out and reported."""
    ids = columns["id"]
    rows, findings = _rows_of(ids, dep_ids)
    keep = rows >= 0
    if not keep.all():
        findings += _dangling(ids, dep_ptr, dep_ids, np.flatnonzero(~keep))
        dep_ptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)))[dep_ptr]
        rows = rows[keep]
    return Program(dep_ptr=dep_ptr, dep=rows.astype(np.int32), **columns), findings


def _rows_of(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Finding]]:
    """Row of every wanted id, -1 where there is none; duplicate ids as findings (the first row holds)."""
    n = len(ids)
    if n == 0:
        return np.full(len(wanted), -1, np.int64), []
    steps = np.diff(ids)
    if (steps == 1).all():
        rows = wanted - ids[0]
        rows[(rows < 0) | (rows >= n)] = -1
        return rows, []
    findings: list[Finding] = []
    order = None
    ascending = ids
    if not (steps > 0).all():
        order = np.argsort(ids, kind="stable")
        ascending = ids[order]
        for k in np.flatnonzero(ascending[1:] == ascending[:-1])[:_DESCRIBED]:
            findings.append(
                Finding("duplicate", int(order[k + 1]), f"has an id that row {int(order[k])} of its file has already")
            )
    at = np.searchsorted(ascending, wanted)
    at[at == n] = 0
    found = ascending[at] == wanted
    rows = at if order is None else order[at]
    return np.where(found, rows, -1), findings


def _dangling(
    ids: NDArray[np.int64], dep_ptr: NDArray[np.int64], dep_ids: NDArray[np.int64], at: NDArray[Any]
) -> list[Finding]:
    """Findings for the dependencies at these places, which refer to no node."""
    ascending = np.sort(ids)
    findings = []
    for place in at[:_DESCRIBED]:
        wanted = int(dep_ids[place])
        row = int(np.searchsorted(dep_ptr, place, side="right")) - 1
        low = int(np.searchsorted(ascending, wanted))
        near = sorted(ascending[max(0, low - 2) : low + 2].tolist(), key=lambda i: (abs(i - wanted), i))[:2]
        text = f"depends on node {wanted}, which does not exist"
        findings.append(Finding("dangling", row, text, tuple(str(i) for i in sorted(near))))
    if len(at) > _DESCRIBED:
        row = int(np.searchsorted(dep_ptr, at[_DESCRIBED], side="right")) - 1
        findings.append(
            Finding("dangling", row, f"and later ones have {len(at) - _DESCRIBED} more dependencies that do not exist")
        )
    return findings


def describe(program: Program, row: int, rank: int, ranks: int, names: Callable[[int], str]) -> str:
    """``node 7 of rank 3 ("name")``, or of ``ranks 3 and 6 others`` that run the same program."""
    name = int(program.name[row])
    named = f' ("{names(name)}")' if name >= 0 and names(name) else ""
    others = f" (and {ranks - 1} other{'s' if ranks > 2 else ''})" if ranks > 1 else ""
    return f"node {int(program.id[row])} of rank {rank}{others}{named}"


def defects_of(findings: Iterable[Finding], program: Program, ranks: list[int], where: str, names: Callable[[int], str],
               source: str, repaired: bool) -> list[Defect]:  # fmt: skip
    """The findings of a program that ``ranks`` run, as defects that name rank and node."""
    defects = []
    for finding in findings:
        fix = f"Run `distsim trace {source}` for all defects"
        fix += ", or pass --repair to drop dangling dependencies." if finding.kind == "dangling" else "."
        what = f"{describe(program, finding.row, ranks[0], len(ranks), names)} {finding.text}"
        mended = repaired and finding.kind == "dangling"
        defects.append(Defect(finding.kind, what, where, near=finding.near, fix=fix, repaired=mended))
    return defects
