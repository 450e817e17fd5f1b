"""Suite htsim: bars on the reference, structure of traffic, bad input."""

from __future__ import annotations

import csv
import json

import pytest

from distsim.cli.main import main
from distsim.trace.netref import read_netref
from distsim.validation.htsim import traffic


def _scenario(tmp_path, flows, name="made"):
    """Four hosts around a switch at 12.5 GB/s."""
    hosts = [f"h{n}" for n in range(4)]
    links = [[2 * n, f"h{n}", "s", 12.5e9, 1e-6] for n in range(4)]
    links += [[2 * n + 1, "s", f"h{n}", 12.5e9, 1e-6] for n in range(4)]
    rows = [[k, f"h{a}", f"h{b}", 0.0, size, [], [2 * a, 2 * b + 1]] for k, (a, b, size) in enumerate(flows)]
    document = {"schema": "netref/1", "name": name, "hosts": hosts, "switches": ["s"], "links": links, "flows": rows}
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("flows", "kind"),
    [
        ([(1, 0, 1 << 22), (2, 0, 1 << 22), (3, 0, 1 << 22)], "incast"),
        ([(a, b, 1 << 20) for a in range(4) for b in range(4) if a != b], "all_to_all"),
        ([(a, (a + 1) % 4, 1 << 21) for a in range(4)], "permutation"),
        ([(a, (a + 1) % 4, 1000) for a in range(4)], "small"),
        ([(0, 1, 1 << 21), (0, 2, 1 << 21)], "other"),
        ([(0, 1, 1 << 21), (0, 1, 1 << 21)], "other"),
    ],
)
def test_traffic_is_told_by_its_structure(tmp_path, flows, kind):
    assert traffic(read_netref(_scenario(tmp_path, flows))) == kind


def _summary(tmp_path, rows):
    with open(tmp_path / "htsim_summary.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "proto", "mean_s"])
        writer.writerows(rows)


def test_a_row_is_met_or_missed_by_the_mean(tmp_path, capsys):
    _scenario(tmp_path, [(1, 0, 10**7), (2, 0, 10**7), (3, 0, 10**7)])
    by_hand = 3e7 * (1 + 192 / 4096) / 12.5e9  # all end together; latencies are 0.2 % of it
    _summary(tmp_path, [["made", "ndp_spray", by_hand], ["made", "eqds_spray", by_hand * 1.2], ["made", "roce_ecmp", by_hand]])
    assert main(["validate", "htsim", "--data", str(tmp_path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["rows"], made["expressed"], made["matched"]) == (3, 3, 1)
    assert made["metrics"]["matched_fraction"] == 0.5
    assert made["metrics"]["worst_incast"] == pytest.approx(1 / 6, abs=0.005)
    assert made["groups"]["made roce_ecmp"]["least_s"] == made["groups"]["made roce_ecmp"]["most_s"]  # one way only


def test_what_is_missing_is_told(tmp_path, capsys):
    assert main(["validate", "htsim", "--data", str(tmp_path)]) == 2
    assert "htsim_summary.csv" in capsys.readouterr().err
    _summary(tmp_path, [["nowhere", "ndp_spray", 1.0]])
    assert main(["validate", "htsim", "--data", str(tmp_path)]) == 0
    assert "nowhere has rows in the summary, but no scenario" in capsys.readouterr().out
    _summary(tmp_path, [["nowhere", "ndp_spray", "soon"]])
    assert main(["validate", "htsim", "--data", str(tmp_path)]) == 2
    assert "htsim_summary.csv:2" in capsys.readouterr().err


@pytest.mark.slow
def test_parity_sprayed_means_are_within_the_bars(network_reference, capsys):
    assert main(["validate", "htsim", "--data", str(network_reference), "--fail-under", "matched_fraction=1", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["metrics"]["judged"] >= 6
