"""Conversion loses nothing: every format holds what every other holds."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_documents import plain, rank_traces

from distsim.errors import ConfigError, TraceError
from distsim.trace import protobuf
from distsim.trace.convert import convert, format_of, open_document
from distsim.trace.document import Attribute, Node, RankTrace
from distsim.trace.groups import format_groups

TARGETS = {"et": "out/w", "tar": "out/w.tar.gz", "chakra-json": "out/w", "chakra-legacy": "out/w", "native": "out/w.json",
           "parquet": "out/w.parquet"}  # fmt: skip


def write(folder: Path, traces: list[RankTrace], groups: dict[str, tuple[int, ...]]) -> str:
    for rank, trace in enumerate(traces):
        (folder / f"s.{rank}.et").write_bytes(protobuf.write_document(trace))
    if groups:
        (folder / "s.json").write_bytes(format_groups(groups))
    return str(folder / "s")


@given(trace=rank_traces(dangling=True))
def test_protobuf_holds_every_document(trace: RankTrace) -> None:
    data = protobuf.write_document(trace)
    again = protobuf.read_document(data, "x")
    assert plain(again) == plain(trace)
    assert protobuf.write_document(again) == data


@pytest.mark.parametrize("via", TARGETS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(traces=st.lists(rank_traces(), min_size=1, max_size=3), grouped=st.booleans())
def test_et_to_every_format_and_back(via: str, traces: list[RankTrace], grouped: bool) -> None:
    groups = {"7": tuple(range(len(traces))), "unused": (0,)} if grouped else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, middle, back = write(folder, traces, groups), str(folder / TARGETS[via]), str(folder / "back" / "w")
        convert(source, middle, None if via == "tar" else via)
        convert(middle, back, "et")
        before, after = open_document(source), open_document(back)
        assert [plain(t) for t in after] == [plain(t) for t in before]
        assert dict(after.groups) == dict(before.groups)


@settings(max_examples=25, deadline=None)
@given(trace=rank_traces(dangling=True))
def test_dangling_dependencies_survive_text_formats(trace: RankTrace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write(folder, [trace], {})
        for via in ("native", "chakra-json", "chakra-legacy"):
            convert(source, str(folder / via / "w.json"), via)
            convert(str(folder / via / ("w.json" if via == "native" else "w")), str(folder / f"{via}-back"), "et")
            assert plain(open_document(str(folder / f"{via}-back")).load(0)) == plain(trace)


def test_foreign_protobuf_fields_are_kept(tmp_path: Path) -> None:
    trace = RankTrace(
        "1", [], [Node(5, "n", 4, unknown=b"\xa0\x06\x07", attributes=[Attribute("k", "int64", 3, unknown=b"\xa0\x06\x01")])]
    )
    (tmp_path / "s.0.et").write_bytes(protobuf.write_document(trace))
    for via, target in (("native", "a.json"), ("chakra-json", "b"), ("parquet", "c.parquet")):
        convert(str(tmp_path / "s"), str(tmp_path / target), via)
        convert(str(tmp_path / target), str(tmp_path / f"{via}-back"), "et")
        assert (tmp_path / f"{via}-back.0.et").read_bytes() == (tmp_path / "s.0.et").read_bytes()
    with pytest.raises(TraceError, match="legacy form"):
        convert(str(tmp_path / "s"), str(tmp_path / "d"), "chakra-legacy")
    assert not list(tmp_path.glob("d*"))
    assert not list(tmp_path.glob(".*"))


def test_parquet_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    (tmp_path / "s.0.et").write_bytes(protobuf.write_document(RankTrace("", [], [Node(1, "a", 4, [], [9])])))
    with pytest.raises(TraceError, match="depends on node 9, which does not exist"):
        convert(str(tmp_path / "s"), str(tmp_path / "x.parquet"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.0.et"]
    convert(str(tmp_path / "s"), str(tmp_path / "x.parquet"), repair=True)
    assert open_document(str(tmp_path / "x.parquet")).load(0).nodes[0].data_deps == []


def test_format_by_name_and_refusals(tmp_path: Path) -> None:
    assert [format_of(n) for n in ("a.json", "a.json.gz", "a.parquet", "a", "a.tar.gz", "d/")] == [
        "native", "native", "parquet", "et", "et", "et",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="native"):
        convert("a", "b", "nativ")
    with pytest.raises(ConfigError, match="same"):
        convert("a", "./a")
