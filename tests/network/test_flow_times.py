"""Flow scenarios: the netref/1 reader and what it refuses, times at all levels, the command, the suite simgrid."""

import copy
import gzip
import json

import pytest

from distsim.cli.main import main
from distsim.errors import ConfigError, TraceError
from distsim.network.flow_times import flow_times
from distsim.trace.netref import read_netref

#: two routes from a to b (over s and t), 1 GB/s and 1 us a link; ids in no order
TWO_WAYS = {
    "schema": "netref/1", "name": "two_ways", "hosts": ["a", "b"], "switches": ["s", "t"],
    "links": [[7, "a", "s", 1e9, 1e-6], [3, "s", "b", 1e9, 1e-6], [5, "a", "t", 1e9, 1e-6], [1, "t", "b", 5e8, 1e-6]],
    "flows": [
        [40, "a", "b", 0.0, 1000, [20], [7, 3]],  # waits for one that comes later in the file
        [20, "a", "b", 1e-6, 1000, [], [5, 1]],
        [10, "b", "b", 0.0, 99, [], []],
        [30, "a", "b", 0.0, 0, [40], [5, 1]],
    ],
}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    def write(change=lambda document: None, name="s.json"):
        document = copy.deepcopy(TWO_WAYS)
        change(document)
        path = tmp_path / name
        data = json.dumps(document).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


@pytest.mark.parametrize("network", ["fluid", "cut_through", "analytic"])
def test_pairs_with_two_routes_starts_and_dependencies(file, network):
    """20 from 1 us: 2 us and 2 us over the slow way; then 40 with 2 us and 1 us; then 30, which is empty: 2 us."""
    scenario = read_netref(file())
    times = flow_times(scenario, network)
    found = {flow: round(at * 1e9, 6) for flow, at in zip(scenario.flow_id.tolist(), times.finish.tolist(), strict=True)}
    assert found == {20: 5_000, 40: 8_000, 10: 0, 30: 10_000}
    begun = dict(zip(scenario.flow_id.tolist(), times.activate.tolist(), strict=True))
    assert begun[20] == pytest.approx(3e-6)
    assert begun[40] == pytest.approx(7e-6)
    assert dict(zip(scenario.link_id.tolist(), times.usage.bytes.tolist(), strict=True)) == {7: 1000, 3: 1000, 5: 1000, 1: 1000}


def test_no_picosecond_is_in_between(file):
    """A byte at 3 GB/s takes a third of a nanosecond, not 334 ps."""

    def one(document):
        document["links"][0][3] = document["links"][1][3] = 3e9
        document["flows"] = [[0, "a", "b", 0.0, 1, [], [7, 3]]]

    scenario = read_netref(file(one))
    assert flow_times(scenario).finish[0] == pytest.approx(2e-6 + 1 / 3e9, rel=1e-15)
    assert flow_times(scenario, "cut_through").finish[0] == 2_000_334e-12


def test_fields_may_come_in_another_order(file):
    def turned(document):
        document["flow_fields"] = ["note", "route", "id", "src", "dst", "bytes", "start_s", "deps"]
        document["flows"] = [["x", f[6], f[0], f[1], f[2], f[4], f[3], f[5]] for f in document["flows"]]

    one, other = (flow_times(read_netref(path)).finish.tolist() for path in (file(), file(turned, "t.json.gz")))
    assert one == other


def edit(table, row, column, value):
    def change(document):
        document[table][row][column] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema="netref/9"), "not a flow scenario"),
        (lambda d: d.update(hosts=["a", "s"]), "two nodes are called 's'"),
        (lambda d: d.update(hosts="ab"), "no list of names"),
        (lambda d: d.pop("links"), "links is no list"),
        (lambda d: d["links"][0].pop(), "row 0 of links has 4 fields"),
        (lambda d: d.update(link_fields=["id"]), "does not name every field"),
        (edit("links", 1, 0, 7), "id of another link"),
        (edit("links", 1, 0, "7"), "is no integer"),
        (edit("links", 0, 3, 0), "bandwidth_Bps is 0"),
        (edit("links", 0, 3, float("inf")), "bandwidth_Bps is inf"),
        (edit("links", 0, 4, -1e-6), "latency_s is -1e-06"),
        (edit("links", 0, 1, "c"), "no node 'c'"),
        (edit("flows", 1, 0, 40), "id of another flow"),
        (edit("flows", 0, 1, "s"), "'s' is a switch"),
        (edit("flows", 0, 2, None), "no node None"),
        (edit("flows", 0, 3, "soon"), "start_s is 'soon'"),
        (edit("flows", 0, 4, float("nan")), "bytes is nan"),
        (edit("flows", 0, 5, [21]), "no flow 21"),
        (edit("flows", 0, 5, 20), "no list of flow ids"),
        (edit("flows", 0, 6, [7, 4]), "no link 4"),
        (edit("flows", 0, 6, [7, 1]), "the route is broken"),
        (edit("flows", 0, 6, [7]), "the route leads to s, not to b"),
        (edit("flows", 0, 6, []), "the route leads to a, not to b"),
        (edit("flows", 1, 5, [30]), "3 flows wait for one another in a circle"),
        (edit("flows", 0, 5, [40]), "wait for one another"),
    ],
)  # fmt: skip
def test_bad_scenarios_are_refused(file, change, message, capsys):
    path = file(change)
    with pytest.raises(TraceError, match=message):
        read_netref(path)
    assert main(["flows", path]) == 1
    captured = capsys.readouterr()
    assert not captured.out
    assert path in captured.err


def test_files_that_are_none_are_refused(tmp_path, capsys):
    for name, data in (("a.json", b"{"), ("b.json", b"[1]"), ("c.json.gz", b"\x1f\x8b\x00"), ("d.json", b"\xff\xfe")):
        (tmp_path / name).write_bytes(data)
        assert main(["flows", str(tmp_path / name)]) == 1
    assert main(["flows", str(tmp_path / "none.json")]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_parts_of_bytes_only_at_fluid(file):
    scenario = read_netref(file(edit("flows", 1, 4, 10.5)))
    assert flow_times(scenario).finish[0] == pytest.approx(1e-6 + 2e-6 + 21e-9, rel=1e-12)
    with pytest.raises(ConfigError, match=r"10\.5 bytes"):
        flow_times(scenario, "chunk")


def test_the_command_prints_the_answer_first(file, capsys):
    assert main(["flows", file()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("two_ways: 4 flows in 10 us; completion mean ")
    assert "link 1, t -> b: 20.0 % used" in lines[2]
    assert main(["flows", file(), "--json", "--network", "cut_through"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["makespan_s"] == pytest.approx(10e-6)
    assert [flow["id"] for flow in document["flows"]] == [10, 20, 30, 40]
    assert document["completion_s"]["p50"] == pytest.approx(2.5e-6)
    assert main(["flows", file(), "--network", "fluid:cap=fast"]) == 2
    assert main(["flows", file(), "--network", "fluit"]) == 2
    assert "Nearest: fluid" in capsys.readouterr().err


def test_a_scenario_without_flows(file, capsys):
    assert main(["flows", file(lambda d: d.update(flows=[])), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["makespan_s"] == 0
    assert main(["flows", file(lambda d: d.update(flows=[]))]) == 0


def test_simgrid_is_met_flow_by_flow(network_reference, capsys):
    words = ["validate", "simgrid", "--data", str(network_reference), "--json", "--quiet", "--fail-under", "matched_fraction=1"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["matched"] == found["rows"] >= 10_138
    assert len(found["groups"]) >= 15
    assert found["metrics"]["worst_relative"] <= 2e-9
    assert found["metrics"]["rttweighted_worst_relative"] <= 2e-9


def test_the_suite_counts_what_is_off_and_what_does_not_run(file, tmp_path, capsys):
    file(name="good.json.gz")
    file(lambda d: d.update(name="bad", flows=[[0, "a", "b", 0, 1, [], [3]]]), "bad.json")
    (tmp_path / "simgrid_reference.csv").write_text(
        "scenario,flow,activate_s,finish_s,finish_rttweighted_s\n"
        "two_ways,20,3e-6,5e-6,\ntwo_ways,40,7e-6,8.1e-6,\nbad,0,0,1,\nlost,0,0,1,\n"
    )
    words = ["validate", "simgrid", "--data", str(tmp_path), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["expressed"], found["matched"]) == (4, 2, 1)
    assert found["groups"]["two_ways"]["worst_relative"] == pytest.approx(0.1 / 8.1)
    assert sum(found["refused"].values()) == 2
    assert main([*words, "--fail-under", "matched_fraction=1"]) == 1
    (tmp_path / "simgrid_reference.csv").write_text("scenario,flow,activate_s,finish_s\ntwo_ways,99,0,1\n")
    assert main(words) == 0
    assert "has no flow 99" in capsys.readouterr().out
    (tmp_path / "simgrid_reference.csv").write_text("scenario,flow\ntwo_ways,99\n")
    assert main(words) == 2
    (tmp_path / "simgrid_reference.csv").unlink()
    assert main(words) == 2
