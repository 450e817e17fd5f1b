"""``kind: run``: a point is a run specification (``distsim run``): trace, topology, network level, routing, collectives ..."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import PydanticUndefined

from distsim.api import simulate
from distsim.params import validated
from distsim.registry import register
from distsim.run_spec import RunSpec
from distsim.sweep.evaluator import Columns, Evaluator, Point
from distsim.sweep.shipped import shipped_file


def evaluate(point: Point) -> Columns:
    """Simulate. Averages over ranks as fractions of the makespan; links of the topology as built."""
    from distsim.analysis.breakdown import PARTS
    from distsim.analysis.summary import summarise

    options = dict(point)
    options["trace"] = shipped_file("traces", str(options["trace"]), ".json")
    result = simulate(validated(RunSpec, "run", options))
    summary = summarise(result)
    average = summary.breakdown.average()
    return {
        "makespan_ps": result.makespan, "ranks": result.ranks, "hosts": result.topology.hosts,
        **{f"{part}_fraction": float(average[part]) for part in PARTS},
        "busiest_link_fraction": max((link.utilisation for link in summary.links), default=0.0),
        "link_bytes": int(result.links.bytes.sum()), "warnings": len(result.warnings),
    }  # fmt: skip


def bound(point: Point) -> Columns:
    """Refuses options that no run has; there is no bound on the time of a trace that has not been read."""
    validated(RunSpec, "run", dict(point))
    return {}


def objectives(varied: frozenset[str]) -> Mapping[str, str]:
    """The makespan; against hosts where the topology varies."""
    return {"makespan_ps": "min", "hosts": "min"} if "topo" in varied else {"makespan_ps": "min"}


_FIELDS = {name: ... if field.default is PydanticUndefined else field.default for name, field in RunSpec.model_fields.items()}

RUN = register("study", "run")(Evaluator("run", f"{__name__}:evaluate", _FIELDS, ("trace",), f"{__name__}:bound", objectives))
