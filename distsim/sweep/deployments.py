"""Capacities of many deployments side by side, and which of them no other betters."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from distsim import registry
from distsim.errors import ConfigError
from distsim.sweep.evaluator import Evaluator
from distsim.sweep.executors import crew
from distsim.sweep.findings import Findings, findings
from distsim.sweep.folder import JOURNAL, prepare, write
from distsim.sweep.journal import Journal
from distsim.sweep.pareto import front
from distsim.sweep.points import Space, Tally
from distsim.sweep.runner import Progress, run, screen
from distsim.sweep.study import study

#: what is weighed: capacity against GPUs; and, at a price, the cost of tokens against the slow first tokens
SIZE: Mapping[str, str] = {"capacity_per_s": "max", "gpus": "min"}
MONEY: Mapping[str, str] = {"cost_per_million_output_tokens": "min", "ttft_p99_ps": "min"}
#: column: whether no other deployment is both cheaper and faster
BARGAIN = "best_for_its_price"


def read_deployments(path: str) -> list[dict[str, Any]]:
    """Flat fields of every deployment of a YAML file: a list of mappings. Raises ConfigError."""
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {' '.join(str(error).split())}", where=path) from None
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) and one for one in found):
        raise ConfigError("is no list of deployments", where=path, expected="- {tp: 4, scheduler: vllm_v1}, one a line")
    return [{str(key).replace("-", "_"): value for key, value in one.items()} for one in found]


def compare(
    base: Mapping[str, Any], grid: Mapping[str, Sequence[Any]], cases: Sequence[Mapping[str, Any]] = (), *,
    folder: str | None = None, workers: int = 0, progress: Progress = lambda fraction, what: None,
) -> Findings:  # fmt: skip
    """Capacities of all combinations.

    Args:
        base: fields that are the same in all; grid: field -> values, every combination; cases: deployments to combine with.
        folder: of results, journal and page, as of ``distsim sweep``; None: nothing is written.

    Raises: DistsimError for fields that no service has. What cannot run is counted with its reason.
    """
    fixed = dict(base)
    for case in cases:
        fixed |= {name: None for name in case if name not in fixed}
    document: dict[str, Any] = {"kind": "capacity", "name": "deployments", "base": fixed}
    document |= {"grid": {name: list(values) for name, values in grid.items()}, "points": [dict(case) for case in cases]}
    whole = study(document, "capacity")
    evaluator: Evaluator = registry.lookup("study", whole.kind)
    refused = Tally()
    space = Space(whole, evaluator, "capacity")
    tasks = screen(evaluator, space.points(refused), refused, progress)
    with tempfile.TemporaryDirectory() as aside:
        target = prepare(folder if folder is not None else f"{aside}/capacity")
        journal = Journal(target / JOURNAL)
        try:
            outcomes = {}
            if tasks:
                with crew(workers or (1 if len(tasks) == 1 else 0)) as some:
                    outcomes = run(evaluator, tasks, some, journal, progress)
            found = _weighed(findings(whole, space.names, space.size, SIZE, tasks, outcomes, refused))
            if folder is not None:
                write(target, found, yaml.safe_dump(document, sort_keys=False))
            return found
        finally:
            journal.close()


def _weighed(found: Findings) -> Findings:
    """With the fronts among those that bear any load at all."""
    serving = [at for at, row in enumerate(found.rows) if row.get("capacity_per_s")]
    rows = [found.rows[at] for at in serving]
    size = [serving[at] for at in front(rows, SIZE)]
    money = {serving[at] for at in front(rows, MONEY)}
    priced = any(row.get("cost_per_million_output_tokens") is not None for row in rows)
    told = [
        {**{name: value for name, value in row.items() if name != "failed"},
         **({BARGAIN: at in money} if priced else {}), "failed": row["failed"]}
        for at, row in enumerate(found.rows)
    ]  # fmt: skip
    return replace(found, rows=told, front=size, best=size[0] if size else None)
