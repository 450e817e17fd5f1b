"""Whatever a file holds, the command line answers with an exit code and one message, soon: no traceback, no hang."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest
from building import ROOT

from distsim.cli.main import main
from distsim.errors import ConfigError
from distsim.trace import protobuf
from distsim.trace.document import Attribute, Node, RankTrace
from distsim.trace.read import read_trace

WHOLE = protobuf.write_document(
    RankTrace("0.0.4", [], [Node(k, f"n{k}", 4, [], [k - 1] if k else [], 0, 7) for k in range(2)]
              + [Node(2, "r", 7, attributes=[Attribute("pg_name", "string", "a"), Attribute("comm_size", "int64", 8)])])
)  # fmt: skip
GROUPS = b'{"a": [0, 1]}'


def told(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """The message of a command that must fail."""
    assert main([str(word) for word in argv]) in (1, 2)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return shown.err + shown.out


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def answers(*argv: str | Path) -> None:
    """A command that may succeed or fail, but must answer."""
    assert main([str(word) for word in argv]) in (0, 1, 2)


def test_cut_at_every_byte(tmp_path: Path) -> None:
    put(tmp_path / "w.0.et", WHOLE)
    put(tmp_path / "w.json", GROUPS)
    for at in range(len(WHOLE)):
        put(tmp_path / "w.1.et", WHOLE[:at])
        answers("trace", tmp_path / "w")
        answers("convert", tmp_path / "w", tmp_path / "out.parquet")
    zipped = gzip.compress(WHOLE, mtime=0)
    for at in range(len(zipped)):
        assert main(["trace", str(put(tmp_path / "z.et.gz", zipped[:at]))]) == 1
    packed = tar({"w.0.et": WHOLE, "w.1.et": WHOLE, "w.json": GROUPS})
    for at in range(0, 3 * 1024, 101):
        answers("trace", put(tmp_path / "t.tar", packed[:at]))
    packed = gzip.compress(packed, mtime=0)
    for at in range(0, len(packed), 3):
        assert main(["trace", str(put(tmp_path / "t.tgz", packed[:at]))]) == 1


@pytest.mark.parametrize("ending", ["et", "json", "parquet", "et.gz", "json.gz", "tar", "tgz", "bin"])
def test_random_bytes_and_no_bytes(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = random.Random(1)
    for size in (0, 1, 2, 3, 5, 30, 300, 3000):
        assert told(capsys, "trace", put(tmp_path / f"x.{ending}", source.randbytes(size)))
        assert told(capsys, "convert", tmp_path / f"x.{ending}", tmp_path / "out.json")
    assert told(capsys, "trace", put(tmp_path / f"x.{ending}", gzip.compress(b"")))


def test_folders_and_odd_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("d", "d.et", "d.json", "d.parquet", "d.tar"):
        (tmp_path / name).mkdir()
        assert "no such trace" in told(capsys, "trace", tmp_path / name)
    (tmp_path / "e.0.et").mkdir()
    assert "Is a directory" in told(capsys, "trace", tmp_path / "e")
    for path in ("", "a\0b", "x" * 5000):
        assert "no such trace" in told(capsys, "trace", path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "w.0.et", WHOLE).chmod(0)
    assert "Permission denied" in told(capsys, "trace", tmp_path / "w")
    assert "Permission denied" in told(capsys, "trace", tmp_path / "w.0.et")


def test_unreadable_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, for tests that run as root: the system refuses to open."""
    path = str(put(tmp_path / "w.0.et", WHOLE))
    real = io.open

    def refuse(file: Any, *more: Any, **named: Any) -> Any:
        if str(file) == path:
            raise PermissionError(13, "Permission denied", path)
        return real(file, *more, **named)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    for source in (path, tmp_path / "w"):
        assert "Permission denied" in told(capsys, "trace", source)


def test_tars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.tar"
    assert "holds no PREFIX" in told(capsys, "trace", put(path, tar({"a.txt": b"x"})))
    assert "2 traces" in told(capsys, "trace", put(path, tar({"a.0.et": WHOLE, "b.0.et": WHOLE})))
    assert "rank 1 is missing" in told(capsys, "trace", put(path, tar({"a.0.et": WHOLE, "a.2.et": WHOLE})))
    assert "1, 2, 3, 4, 5, 6, 7, 8 ... is missing" in told(
        capsys, "trace", put(path, tar({"a.0.et": WHOLE, "a.999999999.et": WHOLE}))
    )
    assert main(["trace", str(put(path, tar({"README": b"x", "a.0.et": b"\0", "b.json": b"["})))]) == 0, "junk beside a trace"


@pytest.mark.parametrize(
    "groups",
    ["", "[]", "{", "null", '{"a":1}', '{"a":["x"]}', '{"a":[1,1]}', '{"a":[-1]}', '{"a":[true]}', '{"a":[1.5]}', "\0",
     '{"a":[' + "9" * 5000 + "]}", "[" * 100_000, '{"b":[0]}', '{"a":[]}', '{"a":[1]}'],
)  # fmt: skip
def test_groups(groups: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "w.0.et", WHOLE)
    file = put(tmp_path / "w.json", groups.encode())
    assert told(capsys, "trace", tmp_path / "w")
    assert told(capsys, "trace", tmp_path / "w.0.et", "--groups", file)


NODE = {"op": "all_reduce", "name": "r{i}", "bytes": "8MiB", "group": "g", "after": ["a"], "stream": "s", "dims": [0]}
FIRST = {"id": 1, "op": "compute", "name": "a", "duration": "1ms", "attrs": [{"name": "x", "kind": "int64", "value": 1}]}
NATIVE = {
    "format": "distsim-trace/1", "ranks": 2, "groups": {"g": {"size": 2, "stride": 1}},
    "programs": [{"name": "p", "ranks": "all", "nodes": [
        FIRST, {"repeat": 2, "nodes": [NODE]}, {"op": "send", "peer": "+1", "group": "g", "bytes": 8, "tag": 1}]}],
}  # fmt: skip
LEGACY = {"workload_graph": [{"Id": 0, "Name": "a", "NodeType": 4, "data_deps": [0], "runtime": 5, "is_cpu_op": True}]}
OBJECT = {
    "id": "1", "name": "a", "type": "COMP_NODE", "dataDeps": ["0"], "inputs": {"values": "v"}, "durationMicros": "5",
    "attr": [{"name": "num_ops", "docString": "d", "int64Val": "5"}],
}  # fmt: skip
ODD: list[Any] = [
    None, True, -1, 0, 1.5, 1e300, float("nan"), float("inf"), 1 << 70, 10**12, "", "x", "1e400", "{i-9}", "{", "0-99999999999",
    "0-999999999", "+" + "9" * 30, [], [None], [[]], {}, {"a": 1}, "1" * 5000, [1, 1], "5-1", "0-1:0", "\ud800", [1 << 70],
]  # fmt: skip


def variants(whole: Any, part: Any) -> Any:
    """Every document in which one value is odd, or missing, or has an unknown key."""
    keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else []
    for key in keys:
        value = part[key]
        for odd in ODD:
            part[key] = odd
            yield json.dumps(whole).encode()
        part[key] = value
        if isinstance(value, dict):
            value["unheard"] = 1
            yield json.dumps(whole).encode()
            del value["unheard"]
        yield from variants(whole, value)


@pytest.mark.parametrize("document", [NATIVE, LEGACY, OBJECT], ids=["native", "legacy", "object"])
def test_odd_values_in_json(document: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.0.json"
    for number, data in enumerate(variants(document, document)):
        answers("trace", put(path, data))
        if number % 5 == 0:
            for out in ("out.parquet", "out.json", "out.et"):
                answers("convert", path, tmp_path / out)


@pytest.mark.parametrize(
    "nodes",
    [
        '{"repeat": 1000000000, "nodes": [{"op": "compute"}]}',
        '{"repeat": 1000000000, "nodes": []}',
        '{"repeat": 99, "nodes": [' * 12 + '{"op": "compute"}' + "]}" * 12,
        '{"repeat": 1, "nodes": [' * 3000 + '{"op": "compute"}' + "]}" * 3000,
    ],
)
def test_repeats_without_end(nodes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '{"format": "distsim-trace/1", "programs": [{"nodes": [' + nodes + "]}]}"
    assert told(capsys, "trace", put(tmp_path / "t.json", text.encode()))


def test_a_groups_file_beside_a_trace_that_holds_its_own_is_refused(tmp_path):
    groups = tmp_path / "groups.json"
    groups.write_text('{"1": [0, 1]}')
    with pytest.raises(ConfigError, match="holds its own groups"):
        read_trace(ROOT / "traces" / "dp_overlapped_buckets.json", groups=str(groups))
