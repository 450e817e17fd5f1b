"""Calibration: it recovers what made the data, says how good it is where it was not fitted, and its file comes back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distsim.cli.main import main
from distsim.errors import ConfigError
from distsim.nccl.calibrate import calibrate, document, load_calibration, save
from distsim.nccl.fit import Sample, fit, left_out_errors, relative_errors
from distsim.nccl.model import Calibration, Factors, segments, time_us
from distsim.nccl.system import system_of

SIZES = [1 << power for power in range(10, 31)]


def _made(system, calibration, rng=None, noise=0.0):
    """Samples as the model would measure them under a calibration."""
    samples = []
    for operation in ("all_reduce", "all_gather", "reduce_scatter"):
        for size in SIZES:
            factor = 1 + noise * float(rng.standard_normal()) if rng is not None else 1.0
            samples.append(Sample(operation, size, system, time_us(operation, size, system, calibration) * factor))
    return samples


def _truth(system, latency, transfer):
    kinds = {at[1:] for operation in ("all_reduce", "all_gather", "reduce_scatter") for at in segments(operation, system)}
    return Calibration(
        system.gpu, system.nodes > 1,
        tuple((name, wire, Factors(latency, latency, 1.0, transfer, transfer)) for name, wire in sorted(kinds)),
    )  # fmt: skip


@pytest.mark.parametrize(("gpu", "latency", "transfer"), [("h100", 1.6, 1.2), ("a100", 0.7, 1.5), ("b200", 2.0, 0.8)])
def test_recovers_the_factors_that_made_the_data(gpu, latency, transfer):
    samples = []
    for ranks in (2, 4, 8):
        system = system_of(gpu, ranks)
        samples += _made(system, _truth(system_of(gpu, 8), latency, transfer))
    before, after = relative_errors(samples), relative_errors(samples, fit(samples))
    assert np.abs(before).mean() > 0.15
    assert np.abs(after).mean() < 0.02


def test_noise_is_not_fitted():
    system = system_of("h100", 8)
    samples = _made(system, _truth(system, 1.5, 1.3), np.random.default_rng(7), 0.05)
    left_out = np.abs(left_out_errors(samples, np.random.default_rng(0))).mean()
    assert 0.02 < left_out < 0.08


def test_an_outlier_does_not_move_the_fit():
    system = system_of("h100", 8)
    samples = _made(system, _truth(system, 1.5, 1.3))
    samples[5] = Sample("all_reduce", samples[5].size, system, samples[5].time_us * 20)
    clean = [one for number, one in enumerate(samples) if number != 5]
    assert np.abs(relative_errors(clean, fit(samples))).mean() < 0.03


def test_a_point_is_left_out_with_its_repetitions():
    """Ten captures of every point, each point wrong in its own way: fitting them all does not help those left out."""
    system = system_of("h100", 8)
    rng = np.random.default_rng(3)
    points = _made(system, None, rng, 0.3)
    once = np.abs(left_out_errors(points, np.random.default_rng(0))).mean()
    often = np.abs(left_out_errors(points * 10, np.random.default_rng(0))).mean()
    assert often > 0.8 * once


def test_factors_are_never_negative_and_time_never_falls():
    system = system_of("h100", 16, 2)
    rng = np.random.default_rng(5)
    samples = [Sample("all_reduce", size, system, float(rng.uniform(20, 40))) for size in SIZES]
    found = fit(samples)
    assert all(value >= 0 for _, _, factors in found.factors for value in factors)
    times = [time_us("all_reduce", size, system, found) for size in range(1000, 1 << 24, 99991)]
    assert times == sorted(times)


def test_too_few_and_mixed():
    system = system_of("h100", 8)
    few = [Sample("all_reduce", 1024, system, 10.0)] * 50
    with pytest.raises(ConfigError, match="1 distinct points are too few"):
        calibrate(few)
    mixed = _made(system, None) + _made(system_of("a100", 8), None)
    with pytest.raises(ConfigError, match="several systems: a100 on one node, h100 on one node"):
        calibrate(mixed)
    with pytest.raises(ConfigError, match="h100 on one node, h100 on several nodes"):
        calibrate(_made(system, None) + _made(system_of("h100", 16, 2), None))


def test_the_file_comes_back(tmp_path):
    system = system_of("h100", 8)
    fitted = calibrate(_made(system, _truth(system, 1.4, 1.1)))
    source, path = tmp_path / "data.txt", str(tmp_path / "h100.json")
    source.write_text("data")
    save(path, document(fitted, [str(source)]))
    assert load_calibration(path) == fitted.calibration
    content = json.loads((tmp_path / "h100.json").read_text())
    assert content["schema"] == "distsim-nccl-calibration"
    assert content["version"] == 1
    assert content["sources"][0]["file"] == "data.txt"
    assert len(content["sources"][0]["sha256"]) == 64
    assert content["system"]["gpu"] == "h100"
    assert content["error"]["mape"] < 0.02 < content["error"]["default_mape"]
    assert sum(one["rows"] for one in content["error"]["by_size"].values()) == content["error"]["rows"] == 3 * len(SIZES)
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "is not JSON"),
        ("[]", "is not a calibration"),
        ('{"schema": "other"}', "is not a calibration"),
        ('{"schema": "distsim-nccl-calibration", "version": 2}', "has version 2"),
        ('{"schema": "distsim-nccl-calibration", "version": 1}', "is damaged"),
        ('{"schema": "distsim-nccl-calibration", "version": 1, "system": {"gpu": "x", "several_nodes": false}, "factors": {}}',
         "is damaged"),
        ('{"schema": "distsim-nccl-calibration", "version": 1, "system": {"gpu": "h100", "several_nodes": false}, "factors": '
         '{"ring/ll": {"base": -1, "intra": 1, "inter": 1, "transfer": 1, "ramp": 1}}}', "out of range"),
    ],
)  # fmt: skip
def test_a_file_that_is_none(tmp_path, content, message):
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_calibration(str(path))


HEADER = (
    "# Using devices\n"
    + "".join(f"#  Rank  {r} Group  0 Pid  7 on  host0 device  {r} [0x0{r}] NVIDIA H100 80GB HBM3\n" for r in range(8))
    + "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
)


def _text(path, slower=1.3):
    """What all_reduce_perf prints on a system that takes 1.3 times the model's time."""
    system = system_of("h100", 8)
    lines = [
        f"{size} {size // 4} float sum -1 {time_us('all_reduce', size, system) * slower:.2f} 0 0 0 1.0 0 0 0\n"
        for size in SIZES
    ]
    path.write_text("# Collective test starting: all_reduce_perf\n" + HEADER + "".join(lines))


def test_the_command(tmp_path, capsys):
    data, out = tmp_path / "log.txt", tmp_path / "h100.json"
    _text(data)
    assert main(["calibrate", "nccl", "--data", str(data), "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("h100, ranks 8, nodes 1: 21 points, mean error ")
    assert f"wrote {out}" in text
    found = load_calibration(str(out))
    assert time_us("all_reduce", 1 << 20, system_of("h100", 8), found) == pytest.approx(
        1.3 * time_us("all_reduce", 1 << 20, system_of("h100", 8)), rel=0.05
    )
    assert main(["calibrate", "nccl", "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())


def test_what_the_data_do_not_say_is_said_by_options(tmp_path, capsys):
    data = tmp_path / "log.txt"
    _text(data)
    bare = "\n".join(line for line in data.read_text().splitlines() if "Rank" not in line and "Collective" not in line)
    data.write_text(bare)
    words = ["calibrate", "nccl", "--data", str(data)]
    assert (
        main([*words, "--gpu", "h200", "--gpus", "16", "--nodes", "2", "--operation", "allreduce", "--nic-rate", "400Gbps"])
        == 0
    )
    assert capsys.readouterr().out.startswith("h200, ranks 16, nodes 2: 21 points")
    assert main([*words, "--gpus", "8", "--operation", "all_reduce"]) == 2
    assert "--gpu" in capsys.readouterr().err
    assert main([*words, "--gpu", "h100", "--operation", "all_reduce"]) == 2
    assert "--gpus" in capsys.readouterr().err
    assert main([*words, "--gpu", "h100", "--gpus", "8"]) == 2
    assert "operation ''" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["calibrate", "gloo", "--data", "x"], "unknown subject 'gloo'"),
        (["calibrate", "nccl", "--data", "/nowhere/x.txt"], "cannot read"),
        (["calibrate", "nccl", "--data", "LOG", "--gpu", "h1000"], "Nearest: h100"),
        (["calibrate", "nccl", "--data", "LOG", "--nic-rate", "fast"], "fast"),
        (["calibrate", "nccl", "--data", "LOG", "--gpus", "0"], "--gpus 0"),
        (["calibrate", "nccl", "--data", "LOG", "--operation", "sum"], "unknown operation 'sum'"),
        (["calibrate", "nccl", "--data", "LOG", "--system", "mine"], "unknown system 'mine'"),
        (["calibrate", "nccl", "--data", "LOG", "--nodes", "3"], "not even over 3"),
        (["calibrate", "nccl", "--data", "LOG", "-o", "/nowhere/x.json"], "cannot be written"),
        (["calibrate", "nccl", "--data", "TWO"], "holds 2 systems"),
    ],
)
def test_bad_usage(tmp_path, capsys, words, message):
    log, two = tmp_path / "log.txt", tmp_path / "two.csv"
    _text(log)
    two.write_text("system,gpu,size,time,operation,ranks\na,h100,1024,9,all_reduce,8\nb,h100,1024,9,all_reduce,8\n")
    words = [{"LOG": str(log), "TWO": str(two)}.get(word, word) for word in words]
    assert main(words) != 0
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
