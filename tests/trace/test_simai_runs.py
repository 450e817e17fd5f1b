"""SimAI's files from end to end: on the command line against closed forms, and beside SimAI's own results.

SimAI is no oracle (its defaults are 30-47 % off measured NCCL): what must agree exactly is what its files say; times must be of
the same size and order where both models mean the same.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from distsim.api import simulate
from distsim.cli.main import main
from distsim.scenario import scenario_of
from distsim.trace.graph import NodeType
from distsim.trace.read import read_trace

HEADER = "HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: {tp} ep: 1 pp: 1 vpp: 1 ga: 1 all_gpus: {ranks}"
#: two servers of four GPUs, a rail switch per GPU of a server
TOPOLOGY = """\
14 4 2 4 16 A100
8 9 10 11 12 13
{nvlinks}
{rails}
"""


def topology_text() -> str:
    nvlinks = "\n".join(f"{gpu} {8 + gpu // 4} 2400Gbps 0.000025ms 0" for gpu in range(8))
    rails = "\n".join(f"{gpu} {10 + gpu % 4} 100Gbps 0.0005ms 0" for gpu in range(8))
    meshed = "10 11 100Gbps 0.0005ms 0\n11 12 100Gbps 0.0005ms 0\n12 13 100Gbps 0.0005ms 0"
    return TOPOLOGY.format(nvlinks=nvlinks, rails=rails).replace(" 16 A100", " 19 A100") + meshed + "\n"


@pytest.fixture
def files(tmp_path: Path):
    """Writes a workload of these lines; returns its path and --topo of a topology file."""
    (tmp_path / "cluster").write_text(topology_text())

    def write(header: str, *lines: str) -> tuple[str, str]:
        path = tmp_path / "workload.txt"
        path.write_text("\n".join([header, str(len(lines)), *lines]) + "\n")
        return str(path), f"simai:{tmp_path / 'cluster'}"

    return write


def run(capsys, *args: str) -> dict:
    assert main(["run", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("network", ["analytic", "cut_through"])
def test_a_workload_runs_as_it_is_on_a_topology_as_it_is(files, capsys, network):
    """Forward 1 ms, an all-reduce of 8 MB over NVSwitch, back 2 ms, weight gradients 3 ms, an all-reduce of 4 MB over rails."""
    mlp = "mlp -1 1000000 ALLREDUCE 8000000 2000000 NONE 0 3000000 ALLREDUCE 4000000 500"
    workload, topo = files(HEADER.format(tp=4, ranks=8), mlp)
    told = run(capsys, workload, "--topo", topo, "--network", network, "--algorithm", "ring")
    tensor = 2 * 3 * (2_000_000 / 300e9 + 2 * 25e-9)
    data = 2 * 1 * (2_000_000 / 12.5e9 + 2 * 500e-9)
    assert told["makespan_ns"] / 1e9 == pytest.approx(6e-3 + tensor + data + 2 * 500e-9, rel=1e-6)
    assert told["warnings"] == []
    assert told["spec"]["topo"] == topo


def test_another_topology_of_a_scenario_gives_another_number_of_ranks(files, tmp_path):
    """The trace is read again where a knob changes how: its ranks are those of the topology's hosts."""
    workload, topo = files("MICRO", "x -1 1 NONE 0 1 NONE 0 1 ALLREDUCE 800000 1")
    small = "3 2 1 0 2 A100\n2\n0 2 2400Gbps 0.000025ms 0\n1 2 2400Gbps 0.000025ms 0\n"
    (tmp_path / "small").write_text(small)
    scenario = scenario_of(simulate(workload, topo).spec)
    assert scenario.trace.ranks == 8
    changed = scenario.changed({"topo": f"simai:{tmp_path / 'small'}"})
    assert changed.run().ranks == changed.trace.ranks == 2
    assert scenario.changed({"network": "analytic"}).trace is scenario.trace


def test_weight_gradients_overlap_with_the_rest_of_the_backward_pass(files, capsys):
    """The last layer's all-reduce (321 us) hides behind the first layer's computation (1 ms): only it shows in the end."""
    header = HEADER.format(tp=4, ranks=8)
    lines = [f"{name} -1 0 NONE 0 0 NONE 0 1000000 {comm} 0" for name, comm in (("a", "NONE 0"), ("b", "ALLREDUCE 4000000"))]
    workload, topo = files(header, *lines)
    assert run(capsys, workload, "--topo", topo)["makespan_ns"] == 2_000_000


def test_the_topology_says_the_ranks_of_an_old_file(files, capsys):
    workload, topo = files("MICRO", "x -1 1 NONE 0 1 NONE 0 1 ALLREDUCE 800000 1")
    told = run(capsys, workload, "--topo", topo)
    assert told["ranks"] == 8
    assert told["warnings"] == ["simai: the header says no all_gpus: 8 ranks, as the topology has hosts"]
    assert run(capsys, workload, "--topo", topo, "--ranks", "4")["ranks"] == 4
    assert run(capsys, workload, "--topo", "switch", "--ranks", "6")["ranks"] == 6


def test_summary_and_conversion_of_a_workload(files, capsys, tmp_path):
    layers = "x -1 7 ALLREDUCE 8000 1 NONE 0 1 ALLREDUCE 800 9", "y -1 1 NONE 0 1 NONE 0 1 NONE 0 1"
    workload, topo = files(HEADER.format(tp=4, ranks=8), *layers)
    assert main(["trace", workload, "--json", "--ranks", "16"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["ranks"], summary["programs"], len(summary["defects"])) == (16, 1, 1)
    expected = run(capsys, workload, "--topo", topo)
    for target in ("t.json", "t.parquet", "et/t"):
        assert main(["convert", workload, str(tmp_path / target)]) == 0
        capsys.readouterr()
        assert run(capsys, str(tmp_path / target), "--topo", topo)["finish_ns"] == expected["finish_ns"]


def test_bad_input_is_one_message_and_an_exit_code(files, capsys):
    header = HEADER.format(tp=4, ranks=16)
    workload, topo = files(header, "x -1 1 ALLREDUCE 8 1 NONE 0 1 NONE 0 1")
    for args, code, words in [
        ([workload, "--topo", topo], 2, "has 8 GPUs, but the job has 16 ranks"),
        ([workload, "--topo", topo + "s"], 2, "cannot be read"),
        ([workload, "--topo", topo, "--ranks", "6"], 1, "does not divide 6 ranks"),
        ([workload, "--topo", topo, "--ranks", "0"], 2, "--ranks"),
        ([workload, "--topo", topo, "--ranks", "8", "--strict"], 1, "8 ranks, as given"),
        ([topo.removeprefix("simai:"), "--topo", topo], 1, ""),
    ]:
        assert main(["run", *args]) == code
        err = capsys.readouterr().err
        assert err.startswith("distsim: ")
        assert words in err
        assert "Traceback" not in err


# --- beside SimAI -------------------------------------------------------------------------------------------------------------

WORKLOADS = ("aicb_G13B-M1-C01", "aicb_G175B-M1-C03", "aicb_L65B_D1_C08")


def rows(folder: Path, tool: str) -> list[dict[str, str]]:
    with (folder / "simai_reference.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["tool"].startswith(tool)]


def one(folder: Path, prefix: str) -> str:
    return str(next(folder.glob(f"{prefix}*.txt")))


@pytest.mark.parametrize("name", WORKLOADS)
def test_compute_is_exactly_what_simai_computes(simai_reference, name):
    graph = read_trace(one(simai_reference, name))
    program = graph.programs[0]
    ours = int(program.duration_ps[(program.type == NodeType.COMP) & ~program.cpu].sum())
    told = [row["extra"].split(", ") for row in rows(simai_reference, "SimAI-Analytical") if name in row["workload"]]
    assert {int(columns[7].split()[0]) for columns in told} == {round(ours / 1e6)}


@pytest.mark.parametrize("name", WORKLOADS)
def test_steps_are_as_long_as_simai_analytical_says(simai_reference, name):
    """Its network (8 NICs of 48.5 GB/s, NVLink of 240 GB/s) as rails: a few percent, and growing alike with the cluster."""
    ours, theirs = [], []
    for row in sorted(rows(simai_reference, "SimAI-Analytical"), key=lambda row: int(row["gpus"])):
        if name in row["workload"]:
            rails = f"rail_optimized:nodes={int(row['gpus']) // 8},gpus_per_node=8,nvlink_bandwidth=240GBps,bandwidth=48.5GBps"
            graph = read_trace(one(simai_reference, name), ranks=int(row["gpus"]))
            ours.append(simulate(graph, topology=rails, network="analytic").makespan / 1e6)
            theirs.append(float(row["value"]))
    assert len(ours) == 3
    assert ours == sorted(ours)
    assert np.array(ours) == pytest.approx(np.array(theirs), rel=0.08)


def test_collectives_in_a_server_are_as_long_as_in_simai_and_ns3(simai_reference, tmp_path):
    """Rings on NVLink, 3 us (AS_SEND_LAT) with every message: within 3 % from 64 KiB to 64 MiB; all-to-all from 1 MiB."""
    topo = f"simai:{simai_reference / 'Spectrum-X_128g_8gps_100Gbps_A100'}"
    workload, compared = tmp_path / "w.txt", 0
    for row in rows(simai_reference, "SimAI-Simulation 1.6"):
        size, op = row["size_bytes"], row["item"]
        if row["gpus"] != "8" or row["layer"] != "collective_us TP" or "SEND_LAT" not in row["extra"]:
            continue
        workload.write_text(f"{HEADER.format(tp=8, ranks=8)}\n1\nx -1 0 {op} {size} 0 NONE 0 0 NONE 0 0\n")
        result = simulate(str(workload), topology=topo, endpoint_delay="3us")
        small = op == "ALLTOALL" and int(size) < 1 << 20
        assert result.makespan / 1e6 == pytest.approx(float(row["value"]), rel=0.1 if small else 0.03), row
        compared += 1
    assert compared == 20


def test_a_micro_file_runs_every_line(simai_reference):
    topo = f"simai:{simai_reference / 'Spectrum-X_16g_8gps_400Gbps_H100'}"
    result = simulate(one(simai_reference, "aicb_all_reduce"), topology=topo)
    times = [row.end_ps - row.start_ps for row in result.collectives]
    assert [row.bytes for row in result.collectives] == [4096 << k for k in range(19)]
    assert times == sorted(times)
