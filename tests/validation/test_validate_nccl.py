"""distsim validate nccl: the bars on the reference (required in CI), any folder of the layout, bad data."""

from __future__ import annotations

import json

import pytest

from distsim.cli.main import main
from distsim.nccl.system import system_of
from distsim.validation.nccl import Nccl

HEADER = "source,system,gpu,nodes,gpus,collective,dtype,size_bytes,latency_us,busbw_GBps,impl,version,note,use\n"


def _row(system="mine", gpu="h100", nodes=1, ranks=8, operation="all_reduce", size=1 << 20, time=30.0, impl="NCCL", use="yes"):
    return f"here,{system},{gpu},{nodes},{ranks},{operation},half,{size},{time},1.0,{impl},2.29,,{use}\n"


def _write(folder, *rows):
    (folder / "nccl_measured.csv").write_text(HEADER + "".join(rows))
    return ["validate", "nccl", "--data", str(folder), "--quiet"]


def test_the_bars(nccl_reference, capsys):
    bars = ["mape=0.12", "mape_calibrated=0.07", "mape_multinode=0.20", "mape_multinode_calibrated=0.08"]
    words = ["validate", "nccl", "--data", str(nccl_reference), "--json", "--quiet"]
    assert main([*words, *(word for bar in bars for word in ("--fail-over", bar))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == found["expressed"] + sum(found["refused"].values())
    for system in ("a100_sxm", "h100_sxm", "b200_sxm", "gb200"):
        assert found["groups"][system]["rows"] >= 360
        assert found["groups"][system]["mape"] < 0.12
        assert found["groups"][f"calibrated, {system}"]["mape"] < 0.07
    assert any(name.startswith("all_to_all") for name in found["groups"])
    assert "no NVSwitch, l40s" in found["groups"]
    assert any(name.startswith("by vLLM") for name in found["groups"])
    assert found["worst"][0]["error"] >= found["worst"][-1]["error"] > 0


def test_what_is_judged(tmp_path, capsys):
    words = _write(
        tmp_path, _row(), _row(size=512), _row(operation="alltoall"), _row(gpu="l40s"), _row(impl="vLLM_graph:x"),
        _row(nodes=2, ranks=16), _row(nodes=2, ranks=16, operation="all_gather"), _row(use="no"), _row(gpu="mi355x"),
        _row(system="h100_pairwise"), _row(size="many"), _row(ranks=9, nodes=2),
    )  # fmt: skip
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["expressed"]) == (12, 7)
    assert found["groups"]["mine"]["rows"] == found["groups"]["across nodes, mine"]["rows"] == 1
    assert found["groups"]["all_to_all, mine"]["rows"] == found["groups"]["no NVSwitch, mine"]["rows"] == 1
    assert found["groups"]["by vLLM_graph"]["rows"] == 1
    assert found["groups"]["out of range, mine"]["rows"] == 2
    assert len(found["refused"]) == 5
    assert set(found["metrics"]) == {f"{name}{end}" for name in ("mape", "median", "p90", "bias") for end in ("", "_multinode")}


def test_nics_and_fabric_are_read_from_the_name(tmp_path):
    """Three networks of one time: the slower the network, the larger the model's time and error."""
    _write(
        tmp_path, _row("a 8x400G", nodes=2, ranks=16, size=1 << 30, time=1.0),
        _row("b 8x BF2 100G", nodes=2, ranks=16, size=1 << 30, time=1.0), _row("c EFA 32x100G", nodes=2, ranks=16, time=1.0),
        _row("d 8x400G", nodes=2, ranks=16, time=1.0),
    )  # fmt: skip
    groups = Nccl().run(tmp_path, lambda fraction, what: None).groups
    fast, slow, efa, ib = (groups[f"across nodes, {name}"]["mape"] for name in (
        "a 8x400G", "b 8x BF2 100G", "c EFA 32x100G", "d 8x400G"))  # fmt: skip
    assert slow > 1.5 * fast
    assert efa > ib + 20
    assert system_of("h100", 16, 2, 8, 12.5e9).net_rate == 100.0


def test_fail_over(tmp_path, capsys):
    words = _write(tmp_path, _row(time=1.0))
    assert main([*words, "--fail-over", "mape=1000"]) == 0
    capsys.readouterr()
    assert main([*words, "--fail-over", "mape=0.12"]) == 1
    captured = capsys.readouterr()
    assert "wanted at most 0.12" in captured.err
    assert captured.out.startswith("nccl: 0 of 1 reference rows matched")
    assert "  mape = " in captured.out
    assert main([*words, "--fail-over", "nothing=1"]) == 2
    assert "unknown metric 'nothing'" in capsys.readouterr().err
    assert main([*words, "--fail-over", "mape"]) == 2
    assert "not METRIC=VALUE" in capsys.readouterr().err


def test_bad_folders(tmp_path, capsys):
    assert main(["validate", "nccl", "--data", str(tmp_path)]) == 2
    assert "holds no nccl_measured.csv" in capsys.readouterr().err
    (tmp_path / "nccl_measured.csv").write_text("a,b\n1,2\n")
    assert main(["validate", "nccl", "--data", str(tmp_path)]) == 2
    assert "has no column system" in capsys.readouterr().err


@pytest.mark.parametrize("gpu", ["H200", "NVIDIA B300 SXM6 AC", "NVIDIA GB300"])
def test_systems_of_other_folders_are_judged(tmp_path, capsys, gpu):
    """Systems that the reference does not hold take the defaults of their generation."""
    assert main([*_write(tmp_path, _row(gpu=gpu, ranks=4)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["expressed"] == 1
