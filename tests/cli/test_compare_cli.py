"""``distsim compare``: levels side by side, by hand on two pairs that share an uplink."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distsim.cli.compare import networks
from distsim.cli.main import main

#: two leaves of two hosts, one spine: the two sends cross the same uplink
CROSSING = ["--topo", "fat_tree:tiers=2,k=2,hosts_per_leaf=2,bandwidth=10GBps,latency=0ns"]


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """Ranks 0 and 1 each add 10 MB up with a rank of the other leaf, at once."""
    nodes = [{"op": "all_reduce", "name": "sum", "bytes": 10_000_000, "group": "pair", "after": []}]
    document = {
        "format": "distsim-trace/1", "ranks": 4, "groups": {"pair": {"size": 2, "stride": 2}},
        "programs": [{"name": "rank", "ranks": "all", "nodes": nodes}],
    }  # fmt: skip
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_levels_with_contention_take_twice_as_long_and_the_table_says_where(trace, capsys):
    assert main(["compare", trace, "--networks", "analytic,cut_through", *CROSSING, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    analytic, queued = made["levels"]
    # two steps of 5 MB at 10 GB/s each; over the shared uplink, two of them at once
    assert analytic["makespan_ps"] == 10**9
    assert queued["makespan_ps"] == pytest.approx(2 * 10**9, rel=0.01)
    assert analytic["error"] == pytest.approx(-0.5, abs=0.01)
    assert queued["error"] == queued["collective_error"] == 0
    assert analytic["bytes"] == queued["bytes"] == 4 * 10_000_000 * 4  # four hops each
    assert made["parting"]["duration_ps"] == [10**9, 1_500_000_000]  # the first pair goes first in both steps
    assert made["divergences"][0]["operation"] == "all_reduce"


def test_equal_levels_do_not_part(trace, capsys):
    assert main(["compare", trace, "--networks", "analytic,cut_through", "--topo", "switch"]) == 0
    out = capsys.readouterr().out
    assert "levels do not part" in out
    assert out.splitlines()[0].startswith("step ")


def test_the_surface_is_drawn(trace, tmp_path, capsys):
    target = tmp_path / "surface.svg"
    arguments = ["compare", trace, "--networks", "analytic,chunk", *CROSSING, "--plot", str(target)]
    assert main(arguments) == 0
    drawn = target.read_text()
    assert "CPU seconds" in drawn or "<path" in drawn
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--networks", "analytic"], "names 1 level"),
        (["--networks", "analytic,chunk,analytic"], "named twice"),
        (["--networks", "analytic,chunks"], "Nearest: chunk"),
        (["--networks", "analytic,loggops"], "loggops is no level: it has no topology"),
        (["--networks", "analytic,loggops:preset=ai"], "distsim run TRACE --network loggops"),
        (["--networks", "loggop,analytic"], "Nearest: loggops"),
        (["--plot", "surface.doc"], "cannot draw"),
        (["--plot", "no/such/folder/a.svg"], "there is no folder"),
    ],
)
def test_bad_input_is_refused(trace, arguments, said, capsys):
    assert main(["compare", trace, *arguments, *CROSSING]) == 2
    assert said in capsys.readouterr().err


def test_all_levels_are_checked_before_one_runs(trace, capsys, monkeypatch):
    monkeypatch.setattr("distsim.api.simulate", lambda *_, **__: pytest.fail("a level has run"))
    assert main(["compare", trace, "--networks", "analytic,nolink=fluid+*=chunk", *CROSSING]) == 2
    assert "--networks: unknown link domain 'nolink'" in capsys.readouterr().err


def test_a_trace_without_collectives_is_not_said_to_take_the_same(tmp_path, capsys):
    nodes = [{"op": "send", "peer": 1, "bytes": 10_000_000}], [{"op": "receive", "peer": 0, "bytes": 10_000_000}]
    document = {
        "format": "distsim-trace/1", "ranks": 2,
        "programs": [{"name": f"r{rank}", "ranks": str(rank), "nodes": nodes[rank]} for rank in (0, 1)],
    }  # fmt: skip
    path = tmp_path / "pair.json"
    path.write_text(json.dumps(document))
    assert main(["compare", str(path), "--networks", "analytic,chunk", "--topo", "switch"]) == 0
    assert "the trace has no collectives: levels part in what ranks send and receive" in capsys.readouterr().out
    assert main(["compare", str(path), "--networks", "analytic,fluid", "--topo", "switch:latency=0ns"]) == 0
    assert "the trace has no collectives: levels do not part" in capsys.readouterr().out


def test_options_stay_with_their_level():
    assert networks("analytic, chunk:size=1MiB,credits=8 ,fluid") == ["analytic", "chunk:size=1MiB,credits=8", "fluid"]
    assert networks("analytic,nvlink=analytic+*=fluid") == ["analytic", "nvlink=analytic+*=fluid"]
