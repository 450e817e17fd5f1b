"""GOAL text: what is read, what is refused and how, GOAL on the native levels, conversion."""

from __future__ import annotations

import contextlib
import gzip
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.api import simulate
from distsim.errors import ConfigError, DeadlockError, TraceError
from distsim.trace.convert import convert
from distsim.trace.goal import graph_of, parse, read
from distsim.trace.graph import NodeType
from distsim.trace.read import load, read_trace
from distsim.trace.schedule import CALC, RECV, SEND

TEXT = b"""/* two ranks,
   the second first */
num_ranks 2

rank 1 {
\tl1: recv 64b from 0 tag 7 cpu 1 nic 2
  calc 500   // unlabelled
  l3 : calc 20 cpu 1
  l3 irequires l1
}
rank 0 { send1: send 64 b to 1 tag 7 nic 1 ; c: calc 1000
c requires send1 }
"""
SWITCH = "switch:bandwidth=50GB/s,latency=500ns"


def test_all_that_a_text_says():
    schedule = parse(TEXT, "x.goal")
    assert schedule.ranks == 2
    assert schedule.rank.tolist() == [0, 0, 1, 1, 1]
    assert schedule.kind.tolist() == [SEND, CALC, RECV, CALC, CALC]
    assert schedule.bytes.tolist() == [64, 0, 64, 0, 0]
    assert schedule.duration.tolist() == [0, 1_000_000, 0, 500_000, 20_000]
    assert schedule.peer.tolist() == [1, -1, 0, -1, -1]
    assert schedule.tag.tolist() == [7, 0, 7, 0, 0]
    assert schedule.cpu.tolist() == [0, 0, 1, 0, 1]
    assert schedule.nic.tolist() == [1, 0, 2, 0, 0]
    assert list(zip(schedule.child.tolist(), schedule.parent.tolist(), schedule.at_start.tolist(), strict=True)) == [
        (4, 2, True), (1, 0, False)
    ]  # fmt: skip
    assert [schedule.label(op) for op in range(5)] == ["send1", "c", "l1", "line 7", "l3"]
    assert schedule.describe(0) == 'send "send1" of rank 0 to rank 1 (64 B, tag 7)'


def test_dependencies_may_be_written_before_what_they_name():
    schedule = parse(b"num_ranks 1\nrank 0 {\nb requires a\na: calc 1\nb: calc 2\n}", "x")
    assert (schedule.child.tolist(), schedule.parent.tolist()) == ([1], [0])


WRONG = [
    ("", "says no num_ranks", ""),
    ("rank 0 { }", "line 1: found 'rank'", "num_ranks N"),
    ("num_ranks x", "line 1: found 'x'", "a number"),
    ("num_ranks 0", "has 0 ranks", "from 1"),
    ("num_ranks 99999999999", "has 99,999,999,999 ranks", ""),
    ("num_ranks 2\nrank 0 { }", "rank 1 is not described", "2 ranks"),
    ("num_ranks 1\nrank 0 { }\nrank 0 { }", "line 3: rank 0 is described again", ""),
    ("num_ranks 1\nrank 0 { }\nrank 1 { }", "line 3: there is no rank 1", "0 to 0"),
    ("num_ranks 1\nrank 0 calc 1", "line 2, rank 0: found 'calc'", "{"),
    ("num_ranks 1\nrank 0 {\na: calc 1\n", "the text ends", "} before"),
    ("num_ranks 1\nrank 0 {\na: calc }", "line 3, rank 0, \"a\": found '}'", "a number"),
    ("num_ranks 1\nrank 0 {\na: clac 5\n}", "line 3, rank 0, \"a\": found 'clac'", "send, recv or calc"),
    ("num_ranks 1\nrank 0 {\na; calc 5\n}", 'line 3, rank 0, "a": the line ends', ":, requires or irequires"),
    ("num_ranks 1\nrank 0 {\na: send 5 to 0\n}", "line 3, rank 0, \"a\": found 'to'", "b after the number of bytes"),
    ("num_ranks 1\nrank 0 {\na: send 5b from 0\n}", "found 'from'", "to"),
    ("num_ranks 1\nrank 0 {\na: recv 5b to 0\n}", "found 'to'", "from"),
    ("num_ranks 1\nrank 0 {\na: send 5b to -1\n}", "found '-1'", "a rank"),
    ("num_ranks 1\nrank 0 {\na: send 5b to 7\n}", 'line 3, rank 0, "a": send names rank 7', "0 to 0"),
    ("num_ranks 1\nrank 0 {\na: send 5b to 0 cpu -1\n}", "found '-1'", "a number"),
    ("num_ranks 1\nrank 0 {\na: send 5b to 0 tga 1\n}", "found 'tga'", "tag, cpu, nic or the end of the line"),
    ("num_ranks 1\nrank 0 {\na: calc 5 tag 1\n}", "found 'tag'", "cpu or the end of the line"),
    ("num_ranks 1\nrank 0 {\na: calc 1.5\n}", "found '.'", "cpu or the end of the line"),
    ("num_ranks 1\nrank 0 {\na: calc 99999999999999999999\n}", "found '99999999999999999999'", "a number below"),
    ("num_ranks 1\nrank 0 {\na: calc 1\na: calc 2\n}", "line 4, rank 0: label 'a' is taken", "one operation"),
    ("num_ranks 1\nrank 0 {\nabc: calc 1\nabc requires abd\n}", "line 4, rank 0: no operation of rank 0 is labelled", "abc"),
    ("num_ranks 1\nrank 0 {\na: calc 1\na requires 7\n}", "found '7'", "a label"),
    ("num_ranks 1\nrank 0 {\n$: calc 1\n}", "found '$'", "a label, send"),
    ("num_ranks 1 /* open", "found '/* open'", "*/ before"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "what", "expected"), WRONG)
@pytest.mark.parametrize("form", ["python", "compiled"])
def test_what_is_no_goal_is_refused_with_its_place(monkeypatch, form, text, what, expected):
    monkeypatch.setenv("DISTSIM_KERNELS", form)
    with pytest.raises(TraceError) as error:
        parse(text.encode(), "bad.goal")
    assert "bad.goal" in str(error.value)
    assert what in str(error.value)
    assert expected in str(error.value)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | st.text("num_raks 01{}:;\nlbsendrcvcpot/*-", max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(noise):
    for text in (noise, b"num_ranks 1\nrank 0 {\n" + noise + b"\n}"):
        with contextlib.suppress(TraceError):
            parse(text, "x.goal")


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_compiled_is_interpreted(data):
    import os

    text = data.draw(st.sampled_from([TEXT, *(t.encode() for t, _, _ in WRONG)]))
    cut = data.draw(st.integers(0, len(text)))
    found = []
    before = os.environ.get("DISTSIM_KERNELS")
    try:
        for form in ("python", "compiled"):
            os.environ["DISTSIM_KERNELS"] = form
            try:
                s = parse(text[:cut], "x")
                found.append([c.tolist() for c in (s.rank, s.kind, s.bytes, s.peer, s.tag, s.cpu, s.nic, s.child, s.parent)])
            except TraceError as error:
                found.append(str(error))
    finally:
        os.environ.pop("DISTSIM_KERNELS") if before is None else os.environ.update(DISTSIM_KERNELS=before)
    assert found[0] == found[1]


def test_as_a_task_graph():
    graph, defects = graph_of(parse(TEXT, "x.goal"))
    first, second = graph.programs
    assert first.type.tolist() == [NodeType.COMM_SEND, NodeType.COMP]
    assert first.bytes.tolist() == [64, -1]
    assert first.dep.tolist() == [0]
    assert second.duration_ps.tolist() == [-1, 500_000, 20_000]
    assert [graph.streams[s] if s >= 0 else "" for s in second.stream] == ["", "", "cpu 1"]
    assert [graph.names[name] for name in second.name] == ["l1", "line 7", "l3"]
    assert [(d.kind, d.severity) for d in defects] == [("order", "warning")]
    assert "1 irequires" in defects[0].what


def test_irequires_becomes_waiting_for_the_same():
    text = b"num_ranks 1\nrank 0 {\na: calc 5\nb: calc 5\nc: calc 5\nd: calc 1\nb requires a\nc irequires b\nd irequires c\n}"
    graph, _ = graph_of(parse(text, "x"))
    program = graph.programs[0]
    waits = [program.dep[program.dep_ptr[k] : program.dep_ptr[k + 1]].tolist() for k in range(4)]
    assert waits == [[], [0], [0], [0]]
    circle = b"num_ranks 1\nrank 0 { a: calc 1; b: calc 1; a irequires b; b irequires a }"
    _, defects = load_text(circle)
    assert "cycle" in [defect.kind for defect in defects]


def load_text(text: bytes):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.goal"
        path.write_bytes(text)
        return load(path)


def test_goal_on_native_levels(tmp_path):
    path = tmp_path / "pair.goal"
    path.write_text("num_ranks 2\nrank 0 { c: calc 10000; s: send 1000000b to 1; s requires c }\n"
                    "rank 1 { r: recv 1000000b from 0; c: calc 5000; c requires r }\n")  # fmt: skip
    for level in ("analytic", "cut_through", "chunk"):
        result = simulate(str(path), SWITCH, network=level)
        hops = 2 if level == "chunk" else 1
        assert result.makespan == (10_000 + hops * 20_000 + 2 * 500 + 5000) * 1000, level


def test_gzip_and_any_name(tmp_path):
    for name, data in (("x.goal.gz", gzip.compress(TEXT)), ("x.txt", b"num_ranks 1\nrank 0 { a: calc 5 }"), ("y.goal", TEXT)):
        (tmp_path / name).write_bytes(data)
        assert read_trace(tmp_path / name).ranks in (1, 2)
        assert read(str(tmp_path / name)) is not None
    (tmp_path / "trace.json").write_text("{}")
    assert read(str(tmp_path / "trace.json")) is None
    assert read(str(tmp_path)) is None


def test_strict_refuses_irequires_and_groups_are_refused(tmp_path):
    path = tmp_path / "x.goal"
    path.write_bytes(TEXT)
    assert any("irequires" in line for line in read_trace(path).defects)
    with pytest.raises(TraceError, match="irequires"):
        read_trace(path, strict=True)
    groups = tmp_path / "g.json"
    groups.write_text("{}")
    with pytest.raises(ConfigError, match="groups"):
        read_trace(path, groups=str(groups))
    with pytest.raises(ConfigError, match="groups"):
        read(str(path), str(groups))


def test_wildcards_run_on_loggops_only(tmp_path):
    path = tmp_path / "x.goal"
    path.write_text("num_ranks 2\nrank 0 { r: recv 1b from -1 }\nrank 1 { s: send 1b to 0 }\n")
    with pytest.raises(TraceError, match=r'recv "r" of rank 0 from any rank.*only --network loggops'):
        read_trace(path)
    assert simulate(str(path), network="loggops").makespan == 5500_000


def test_unmatched_messages_end_in_a_deadlock_on_native_levels(tmp_path):
    path = tmp_path / "x.goal"
    path.write_text("num_ranks 2\nrank 0 { c: calc 1 }\nrank 1 { s: send 1b to 0 tag 4 }\n")
    with pytest.raises((TraceError, DeadlockError), match=re.compile("rank 1.*rank 0|rank 0.*rank 1", re.S)):
        simulate(str(path), SWITCH)


@pytest.mark.parametrize("to", ["native", "parquet"])
def test_conversion_keeps_the_run(tmp_path, to):
    path = tmp_path / "x.goal"
    path.write_bytes(TEXT.replace(b"  l3 irequires l1\n", b"  l3 requires l1\n"))
    out = tmp_path / ("x.json" if to == "native" else "x.parquet")
    convert(str(path), str(out))
    assert simulate(str(out), SWITCH).makespan == simulate(str(path), SWITCH).makespan
    path.write_bytes(TEXT)
    with pytest.raises(TraceError, match="irequires"):
        convert(str(path), str(tmp_path / f"y{out.suffix}"))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 10**6), st.integers(0, 2), st.integers(0, 9)), max_size=20))
def test_text_written_is_text_read(rows):
    lines = []
    for k, (kind, size, peer, tag) in enumerate(rows):
        op = (
            f"calc {size}"
            if kind == CALC
            else f"{'send' if kind == SEND else 'recv'} {size}b {'to' if kind == SEND else 'from'} {peer}"
        )
        lines.append(f"l{k}: {op}" + (f" tag {tag}" if kind != CALC else ""))
        if k:
            lines.append(f"l{k} requires l{k - 1}")
    schedule = parse(("num_ranks 3\nrank 0 {\n" + "\n".join(lines) + "\n}\nrank 1 { }\nrank 2 { }").encode(), "x")
    assert schedule.kind.tolist() == [row[0] for row in rows]
    assert np.where(schedule.kind == CALC, schedule.duration // 1000, schedule.bytes).tolist() == [row[1] for row in rows]
    assert schedule.tag.tolist() == [0 if row[0] == CALC else row[3] for row in rows]
    assert schedule.parent.tolist() == list(range(max(len(rows) - 1, 0)))
