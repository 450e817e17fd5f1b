"""``distsim topo`` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distsim.cli.main import main


def test_the_first_line_is_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topo", "fat_tree:k=8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "fat_tree k=8: 128 hosts, 80 switches, 384 cables; bisection 3.2 TB/s; diameter 6 hops, 5.72 on average"
    )
    assert lines[2].split() == ["domain", "joins", "cables", "each", "way", "per", "hop"]
    assert lines[3].split() == ["host", "gpu", "-", "leaf", "128", "50", "GB/s", "500", "ns"]


def test_inferred_sizes_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topo", "fat_tree", "--gpus", "64"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("fat_tree k=8: 128 hosts")
    assert "k=8 inferred from 64 ranks: 128 hosts" in out


def test_a_bisection_that_is_not_exact_is_called_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topo", "dragonfly"]) == 0
    assert "bisection at most 1.1 TB/s (best split found)" in capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topo", "nd:dims=ring4+switch2", "--json", "--links", "--route", "gpu0", "gpu5"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["hosts"] == 8
    assert answer["bisection_exact"] is True
    assert answer["dimensions"][0] == {"kind": "ring", "size": 4, "bandwidth_bytes_per_s": 50e9, "latency_ps": 500_000}
    assert answer["route"] == ["gpu0->gpu1", "gpu1->dim1.switch1", "dim1.switch1->gpu5"]
    assert len(answer["links"]) == 2 * answer["cables"]


def test_links_and_route(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topo", "switch:hosts=4", "--links", "--route", "gpu0", "gpu3"]) == 0
    out = capsys.readouterr().out
    assert "route gpu0 to gpu3, 2 hops" in out
    assert len([line for line in out.splitlines() if "switch0" in line]) == 8 + 2


@pytest.mark.parametrize("argv", [["topo"], ["topo", "--list"]])
def test_list(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    for text in ("fat_tree", "oversubscription", "400Gbps", "star = switch", "two_racks.yaml"):
        assert text in out


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topo", "--list", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["builders"]["torus"]["properties"]["dims"]["description"]
    assert "mixed_h100_a100.yaml" in answer["files"]
    assert answer["presets"]["h100_superpod"]["builder"] == "rail_optimized"
    assert "SuperPOD" in answer["presets"]["h100_superpod"]["figures"]["nodes_per_unit"]["source"]


def test_presets_are_listed_with_a_source_and_described_with_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topo"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["tpu_v4"]]
    assert "4x4x4 cubes" in line
    assert "glennklockwood.com/garden/processors/TPUv4" in line
    assert main(["topo", "h100_superpod:oversubscription=2", "--gpus", "1024"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("h100_superpod nodes=128 oversubscription=2: 1,024 hosts, 168 switches")
    assert "devices: 1,024 x h100" in out
    assert "SuperPOD RA-11333-001" in out
    assert "full fat tree" not in out, "an overridden figure has no source any more"


def test_devices_of_a_mixed_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topo", "mixed_h100_a100.yaml"]) == 0
    assert "devices: 32 x h100, 64 x a100, 2 hosts without" in capsys.readouterr().out
    assert main(["topo", "mixed_h100_a100.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["devices"] == {"h100": 32, "a100": 64, "": 2}


def test_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "tree.svg"
    assert main(["topo", "fat_tree:k=4", "--draw", str(target)]) == 0
    assert target.read_text().startswith("<svg")
    assert str(target) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["topo", "fat_tre"], "Nearest: fat_tree"),
        (["topo", "fat_tree:k=4", "--gpus", "64"], "Write fat_tree:k=8"),
        (["topo", "ring", "--route", "gpu0", "gpu99"], "unknown host 'gpu99'"),
        (["topo", "ring", "--draw", "ring.gif"], ".svg or .png"),
        (["topo", "nowhere/it.yaml"], "no such topology file"),
        (["topo", "dgx_h100.yaml"], "dgx_h100 is a preset: write dgx_h100"),
        (["topo", "h100_superpd"], "Nearest: h100_superpod"),
        (["topo", "h100_superpod:nods=4"], "h100_superpod: unknown key 'nods'"),
        (["topo", "h100_superpod:nodes=16", "--gpus", "1024"], "Write h100_superpod:nodes=128"),
        (["topo", "tpu_v4", "--gpus", "5000"], "more than the machine has: 4,096"),
    ],
)
def test_refusals_leave_with_2_and_one_message(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("distsim: ")
    assert words in captured.err


def test_help_teaches_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["topo", "--help"])
    out = capsys.readouterr().out
    assert "distsim topo fat_tree --gpus 1024" in out
    assert "nd:dims=ring4+switch8" in out
