"""A calibration that ships with a cluster: named in its YAML file, used without being told, overruled by --calibration."""

from __future__ import annotations

import json

import pytest

from distsim.cli.main import main
from distsim.nccl.model import time_us
from distsim.nccl.system import system_of


def _calibrated(tmp_path, name, factor):
    """A calibration of 8 H100 whose all_reduce takes ``factor`` times as long as the defaults say."""
    system = system_of("h100", 8)
    rows = [f"all_reduce,8,{1 << p},{factor * time_us('all_reduce', 1 << p, system)}" for p in range(10, 31)]
    (tmp_path / f"{name}.csv").write_text("collective,gpus,size_bytes,time_us\n" + "\n".join(rows) + "\n")
    target = tmp_path / f"{name}.json"
    words = ["calibrate", "nccl", "--data", str(tmp_path / f"{name}.csv"), "--gpu", "h100", "-o", str(target)]
    assert main(words) == 0
    return target


@pytest.fixture
def cluster(tmp_path):
    _calibrated(tmp_path, "mine", 2.0)
    path = tmp_path / "cluster.yaml"
    path.write_text("spec: dgx_h100:nodes=1\ncalibration: mine.json\n")
    return path


def _time(capsys, *words):
    capsys.readouterr()
    asked = ["collective", "all_reduce", "--size", "64MiB", "--collectives", "nccl", "--network", "analytic", "--json"]
    assert main([*asked, *words]) == 0
    return json.loads(capsys.readouterr().out)["time_ps"]


def test_the_clusters_own_is_used_unless_another_is_given(cluster, tmp_path, capsys):
    plain = _time(capsys, "--topo", "dgx_h100:nodes=1")
    assert _time(capsys, "--topo", str(cluster)) == pytest.approx(2 * plain, rel=0.05)
    other = _calibrated(tmp_path, "other", 3.0)
    assert _time(capsys, "--topo", str(cluster), "--calibration", str(other)) == pytest.approx(3 * plain, rel=0.05)


def test_it_is_not_asked_for_where_nccl_is_not(cluster, capsys):
    (cluster.parent / "mine.json").unlink()
    assert main(["collective", "all_reduce", "--size", "1MiB", "--topo", str(cluster), "--json"]) == 0
    assert main(["collective", "all_reduce", "--size", "1MiB", "--topo", str(cluster), "--collectives", "nccl"]) == 2
    assert "mine.json" in capsys.readouterr().err
