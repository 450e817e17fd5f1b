"""Public traces are read whole: ASTRA-sim's LLM runs, and Chakra's JSON."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from distsim.errors import TraceError
from distsim.trace.convert import convert
from distsim.trace.graph import NodeType
from distsim.trace.read import load, read_trace

#: ranks, nodes, distinct programs once group names and peers are relative
LLM = {
    "gpt512_dp64tp8": (512, 51200, 1),
    "gpt8_dp8": (8, 1136, 1),
    "gpt8_dp2tp2pp2": (8, 2816, 2),
    "llama16_dp4tp4": (16, 3520, 1),
}


@pytest.mark.parametrize("name", LLM)
def test_llm_traces(reference: Path, name: str, tmp_path: Path) -> None:
    path = reference / "astra" / "llm" / name / "et.tar.gz"
    graph = read_trace(path, strict=True)
    assert (graph.ranks, graph.nodes, len(graph.programs)) == LLM[name]
    for program in graph.programs:
        comm = program.type >= NodeType.COMM_SEND
        assert (program.bytes[comm] > 0).all()
        assert (program.num_ops[~comm] > 0).all()
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    again = read_trace(tmp_path / "w")
    assert again.rank_program.tolist() == graph.rank_program.tolist()


def test_an_llm_trace_survives_conversion(reference: Path, tmp_path: Path) -> None:
    source = str(reference / "astra" / "llm" / "gpt8_dp2tp2pp2" / "et.tar.gz")
    convert(source, str(tmp_path / "a.json"))
    convert(str(tmp_path / "a.json"), str(tmp_path / "a.parquet"))
    convert(str(tmp_path / "a.parquet"), str(tmp_path / "w"))
    before, after = read_trace(source), read_trace(tmp_path / "w")
    for rank in range(8):
        p, q = before.program(rank), after.program(rank)
        assert (p.num_ops == q.num_ops).all()
        assert (p.dep == q.dep).all()
        assert (p.bytes == q.bytes).all()
        assert (p.tag == q.tag).all()
        for row in range(len(p)):
            if p.type[row] == NodeType.COMM_COLL:
                assert before.members(rank, int(p.group[row])) == after.members(rank, int(q.group[row]))


def test_chakra_json(reference: Path, tmp_path: Path) -> None:
    with tarfile.open(reference / "traces" / "chakra_json" / "json_trace.tar.gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None:
                (tmp_path / Path(member.name).name).write_bytes(io.BytesIO(stream.read()).getvalue())
    graph = read_trace(tmp_path / "chakra.0.json")
    assert graph.nodes == 3664
    assert graph.programs[0].duration_ps.max() > 0
    with pytest.raises(TraceError, match="depends on node 3, which does not exist"):
        read_trace(tmp_path / "small_chakra.0.json")
    graph, defects = load(tmp_path / "small_chakra.0.json", repair=True)
    assert sum(line.startswith("dangling") and "repaired" in line for line in graph.defects) == 7
    assert sum(d.kind == "dangling" for d in defects) == 7
    for to in ("chakra-json", "chakra-legacy", "et"):
        convert(str(tmp_path / "chakra.0.json"), str(tmp_path / to / "w"), to)
        assert (
            read_trace(tmp_path / to / "w").programs[0].duration_ps.tolist()
            == read_trace(tmp_path / "chakra.0.json").programs[0].duration_ps.tolist()
        )


def test_pytorch_host_traces_are_refused(reference: Path) -> None:
    with pytest.raises(TraceError, match="PyTorch host execution trace"):
        read_trace(reference / "traces" / "param_resnet_2gpu" / "et_rank0.json.gz")
