"""Documents (the complete form) to the same decoded programs that the kernels make of ``.et`` bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distsim.trace.build import Rows
from distsim.trace.chakra import Decoded
from distsim.trace.document import Document, RankTrace, columns_of


def decode_document(document: Document, world: Mapping[str, Any]) -> Decoded:
    """Decode every rank; ranks whose ``load`` gives the very same object share a program. ``world`` as in chakra.decode."""
    result = Decoded()
    seen: dict[int, int] = {}
    alive: list[RankTrace] = []
    for rank in range(document.ranks):
        trace = document.load(rank)
        if id(trace) not in seen:
            seen[id(trace)] = len(result.programs)
            alive.append(trace)
            _add(trace, document.label(rank), result, world)
        result.rank_program.append(seen[id(trace)])
    if alive:
        head = alive[0]
        result.metadata = ({"version": head.version} if head.version else {}) | {
            a.name: str(a.value) for a in head.attributes if a.kind
        }
    return result


def _add(trace: RankTrace, label: str, result: Decoded, world: Mapping[str, Any]) -> None:
    rows = Rows()
    for node in trace.nodes:
        said = columns_of(node)
        for column, known in (("name", result.names), ("group", result.groups), ("stream", result.streams)):
            text = said.get(column)
            if text is None:
                continue
            if column == "group" and text in ("", "0") and text not in world:
                said[column] = -1
            else:
                said[column] = known.setdefault(text, len(known))
        rows.add([*node.data_deps, *node.ctrl_deps], said)
    program, findings = rows.program(label)
    result.programs.append(program)
    result.findings.append(findings)
    result.labels.append(label)
