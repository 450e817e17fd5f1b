"""Communications that met: their own network level, asked again, gives what was recorded; only those that met are asked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from whatif_cases import recorded_run

from distsim import simulate
from distsim.analysis.underway import under_way
from distsim.analysis.whatif.estimate import Recorded
from distsim.analysis.whatif.times import OnLevel
from distsim.analysis.whatif.together import Episodes
from distsim.scenario import scenario_of


def two_messages(tmp_path, second_us, network="chunk"):
    """Rank 0 sends rank 2 1 MB at 100 us, rank 1 as much at ``second_us``; both cross the link into rank 2."""
    nodes = [[{"op": "compute", "duration": f"{at}us"}, {"op": "send", "name": "s", "peer": 2, "bytes": "1MB"}]
             for at in (100, second_us)]  # fmt: skip
    gets = [{"op": "receive", "name": f"r{peer}", "peer": peer, "bytes": "1MB", "after": []} for peer in (0, 1)]
    programs = [{"name": f"p{rank}", "ranks": [rank], "nodes": some} for rank, some in enumerate([*nodes, gets])]
    file = tmp_path / "two.json"
    file.write_text(json.dumps({"format": "distsim-trace/1", "ranks": 3, "programs": programs}))
    result = simulate(str(file), "switch:hosts=3,bandwidth=50GB/s,latency=1us", network=network)
    return Recorded(scenario_of(result.spec), result)


@pytest.mark.parametrize("network", ["chunk", "cut_through", "fluid"])
def test_who_waits_for_the_other_follows_the_other(network, tmp_path):
    """Sent at 100 us and 110 us over one link of 50 GB/s, 20 us each: the second waits for the first, so that on links that
    serve in order the end depends on when the first comes, and not on when the second does; shared fairly, neither matters."""
    recorded = two_messages(tmp_path, 110, network)
    for rank in (0, 1):
        changed = recorded.scenario.changed({f"rank.{rank}.compute": "1.01x"})
        assert recorded.estimate(changed).makespan == changed.run().makespan
        if network != "fluid":
            moved = recorded.result.makespan - changed.run().makespan
            assert moved == pytest.approx(100e6 * (1 - 1 / 1.01) if rank == 0 else 0, abs=2)


def test_messages_apart_are_in_no_episode(tmp_path):
    recorded = two_messages(tmp_path, 200)
    found = episodes_of(recorded)
    assert len(found) == 0
    assert (found.unit == -1).all()


def test_others_that_would_meet_are_told(tmp_path):
    recorded = two_messages(tmp_path, 110)
    found = episodes_of(recorded)
    begin = recorded.moving.since[found.row]
    end = recorded.result.spans().end[found.row]
    assert len(found) == 1
    assert found.keep(begin, end)
    assert found.keep(begin + 5_000_000, end + 5_000_000)


def episodes_of(recorded):
    level = recorded._level
    assert isinstance(level, OnLevel)
    waited = np.maximum(recorded._base - recorded._alone, 0).astype(np.int64) * (recorded._alone > 0)
    return Episodes(recorded.result.spans(), recorded.moving, recorded._calls, waited, level)


@pytest.mark.parametrize("seed", [1, 17, 71, 72, 78, 126, 128, 252])
def test_what_met_takes_by_itself_what_was_recorded(seed, tmp_path):
    """Ties included: their order is found. To the picosecond."""
    recorded = recorded_run(seed, tmp_path)[1]
    found, spans = episodes_of(recorded), recorded.result.spans()
    begin = recorded.moving.since[found.row]
    took = spans.end[found.row] - begin
    assert (found._took(recorded._calls, begin, took, recorded._level) == took).all()
    shifted = found.took(recorded._calls, begin + 12_345_678, took, recorded._level)
    assert (shifted == took).all()
    assert (under_way(recorded.result).collective[found.row] >= -1).all()


@pytest.mark.parametrize("seed", range(10))
def test_everything_as_it_was_is_as_it_was(seed, tmp_path):
    recorded = recorded_run(seed, tmp_path)[1]
    assert recorded.estimate(recorded.scenario).makespan == recorded.result.makespan
