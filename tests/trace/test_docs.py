"""The examples in docs/traces.md work as printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from distsim.trace.native_model import Repeat
from distsim.trace.read import read_trace

DOCS = Path(__file__).resolve().parents[2] / "docs" / "traces.md"


def test_examples(tmp_path: Path) -> None:
    trace, repeat = re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "t.json").write_text(trace)
    graph = read_trace(tmp_path / "t.json", strict=True)
    assert (graph.ranks, graph.nodes) == (4, 16)
    whole = json.loads(trace)
    whole["groups"] = {"dp": {"size": 4}}
    whole["programs"][0]["nodes"] = [{"op": "compute", "name": "loss"}, json.loads(repeat)]
    (tmp_path / "t.json").write_text(json.dumps(whole))
    assert read_trace(tmp_path / "t.json", strict=True).nodes == 4 * 65
    assert Repeat.model_validate(json.loads(repeat)).reverse
