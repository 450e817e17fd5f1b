"""The shipped traces are what their script makes, small, sound, and of the sizes that the architectures have."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from distsim.trace.check import check
from distsim.trace.read import read_trace

ROOT = Path(__file__).resolve().parents[2]
TRACES = sorted((ROOT / "traces").glob("*.json"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_sound_and_small(path: Path) -> None:
    assert path.stat().st_size < 100_000
    assert check(read_trace(path, strict=True)) == []


def test_made_by_the_script() -> None:
    made = script("make_traces")
    documents = {d["name"]: d for d in (made.llama_tp_dp(), made.pipeline(), made.mixture(), made.buckets())}
    assert sorted(documents) == [path.stem for path in TRACES]
    for path in TRACES:
        assert json.loads(path.read_text()) == documents[path.stem]


def test_sizes_are_those_of_llama_3_8b() -> None:
    m = script("make_traces").LLAMA3_8B
    parameters = m.layers * (m.attention_parameters + m.ffn_parameters + 2 * m.hidden) + 2 * m.vocabulary * m.hidden + m.hidden
    assert parameters == 8_030_261_248
    graph = read_trace(ROOT / "traces" / "llama3_8b_tp8_dp8.json")
    program = graph.programs[0]
    total = int(program.num_ops[program.num_ops > 0].sum()) * graph.ranks
    tokens = 8 * 8192
    assert 1.0 < total / (6 * (parameters - m.vocabulary * m.hidden) * tokens) < 1.25, "6 x parameters x tokens, and attention"


def test_bench_traces(tmp_path: Path) -> None:
    made = script("make_bench_traces")
    for chain in (True, False):
        for rank in range(2):
            (tmp_path / f"{chain}.{rank}.et").write_bytes(made.rank_file(300, chain))
        graph = read_trace(tmp_path / str(chain), strict=True)
        p = graph.programs[0]
        assert len(graph.programs) == 1
        assert p.dep.tolist() == (list(range(299)) if chain else [0] * 299)
        assert (p.collective >= 0).sum() == 30
        assert set(p.bytes.tolist()) == {-1, 1 << 20}
        assert set(p.num_ops.tolist()) == {-1, 10**9}
