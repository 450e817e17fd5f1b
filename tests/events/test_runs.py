"""Whole runs with events, against calculation by hand."""

import json
from fractions import Fraction

import pytest
import yaml
from building import graph, program
from events_network import LEVELS, make
from hypothesis import given
from hypothesis import strategies as st

from distsim.analysis.summary import summarise
from distsim.api import simulate
from distsim.cli.main import main
from distsim.engine.speed import Speed
from distsim.errors import ConfigError, PartitionError, RankLostError
from distsim.report.document import document
from distsim.trace.graph import CollectiveType, NodeType

MS = 1_000_000_000
SIZE = 1 << 20
SER, HOP = 20_971_520, 500_000


def compute(number, ps, deps=()):
    return (number, NodeType.COMP, list(deps), {"duration_ps": ps})


def all_reduce(number, size, deps=()):
    return (number, NodeType.COMM_COLL, list(deps), {"collective": CollectiveType.ALL_REDUCE, "bytes": size})


def run(trace, topology, events, tmp_path, network="analytic", **options):
    """The result with these events."""
    path = tmp_path / "events.yaml"
    path.write_text(yaml.safe_dump(events if isinstance(events, dict) else {"events": events}))
    return simulate(trace, topology, events=str(path), network=network, **options)


def ends(result):
    spans = result.spans()
    return list(zip(spans.start.tolist(), spans.end.tolist(), strict=True))


# --- ranks ---------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from([None, "1", "1.3", "2", "7"])), max_size=6), st.integers(0, 200),
       st.integers(1, 200), st.integers(0, 200))  # fmt: skip
def test_speed_is_the_integral(stretches, start, work, more):
    pieces, now = [(0, Fraction(1))], 0
    for length, pace in stretches:
        now += length
        pieces.append((now, None if pace is None else Fraction(pace)))
    pieces.append((now + 10, Fraction(2)))
    speed = Speed(pieces)
    end = speed.end(start, work)
    assert end >= start + work
    assert speed.end(start, work + more) >= end
    # step by step, in units so small that every pace divides them
    left, at = Fraction(work), Fraction(start)
    step = Fraction(1, 10)
    while left > 0:
        pace = next(p for t, p in reversed(pieces) if t <= at)
        if pace is None:
            at += step
            continue
        following = min((t for t, _ in pieces if t > at), default=None)
        room = (following - at) / pace if following is not None else left
        done = min(left, room)
        left, at = left - done, at + done * pace
    assert end == -(-at.numerator // at.denominator)


def test_a_rank_that_slows_down_amid_a_task(diamond, tmp_path):
    """10 ms of work from 0: at 4 ms the pace becomes 1.5 until 10 ms (4 ms of work), then the last 2 ms at full speed."""
    trace = graph(program([compute(0, 10 * MS), compute(1, 6 * MS, [0])]), program([compute(0, 10 * MS)]))
    events = [{"at": "4ms", "rank": 0, "slow": 1.5, "until": "10ms"}]
    result = run(trace, diamond, events, tmp_path)
    assert ends(result) == [(0, 12 * MS), (12 * MS, 18 * MS), (0, 10 * MS)]
    assert result.events["cost_ps"] == 2 * MS
    assert result.events["baseline_ps"] == 16 * MS
    assert result.makespan == 18 * MS


def test_slow_downs_multiply(diamond, tmp_path):
    trace = graph(program([compute(0, 10 * MS)]))
    events = [{"at": 0, "rank": 0, "slow": 1.3}, {"at": "6.5ms", "rank": "0", "slow": 2}]
    result = run(trace, diamond, events, tmp_path)
    assert result.makespan == 6.5 * MS + 5 * MS * 2.6
    assert [row["alone_cost_ps"] for row in result.events["list"]] == [3 * MS, 3.5 * MS]


def test_a_lost_rank_is_replaced(diamond, tmp_path):
    """Lost at 4 ms of 10, replaced 5 ms later; then it enters its collective, for which the other has waited."""
    trace = graph(*[program([compute(0, work * MS), all_reduce(1, SIZE, [0])]) for work in (10, 8)])
    events = [{"at": "4ms", "rank": 0, "lost": True, "replace_after": "5ms"}]
    for level in LEVELS:
        usual = simulate(trace, diamond, network=level).makespan - 10 * MS
        result = run(trace, diamond, events, tmp_path, level)
        assert result.makespan == 15 * MS + usual
        assert ends(result)[0] == (0, 15 * MS)
    # who is lost enters nothing, either
    events = [{"at": "9ms", "rank": 1, "lost": True, "replace_after": "5ms"}]
    trace = graph(*[program([compute(0, 8 * MS), compute(1, 2 * MS, [0]), all_reduce(2, SIZE, [1])]) for _ in range(2)])
    assert run(trace, diamond, events, tmp_path).makespan == 15 * MS + usual_analytic(trace, diamond)


def usual_analytic(trace, topology):
    return simulate(trace, topology, network="analytic").makespan - 10 * MS


def test_who_is_lost_amid_nothing_starts_nothing(diamond, tmp_path):
    """Rank 1 is idle when it is lost, gets its message then, and may only start on it when another has taken over."""
    send = (1, NodeType.COMM_SEND, [0], {"bytes": SIZE, "peer": 1, "tag": 3})
    receive = (0, NodeType.COMM_RECV, [], {"bytes": SIZE, "peer": 0, "tag": 3})
    trace = graph(program([compute(0, 5 * MS), send]), program([receive, compute(1, 3 * MS, [0])]))
    result = run(trace, diamond, [{"at": "1ms", "rank": 1, "lost": True, "replace_after": "20ms"}], tmp_path)
    assert ends(result)[3] == (21 * MS, 24 * MS)


def test_a_lost_rank_ends_the_run_and_leaves_partial_results(diamond, tmp_path):
    trace = graph(*[program([compute(n, (n + 1) * MS, [n - 1] if n else []) for n in range(5)]) for _ in range(2)])
    with pytest.raises(RankLostError, match=r"at 4 ms: rank 1 is lost") as caught:
        run(trace, diamond, [{"at": "4ms", "rank": 1, "lost": True}], tmp_path)
    partial = caught.value.partial
    assert partial.makespan == 4 * MS
    assert ends(partial) == [(0, MS), (MS, 3 * MS), (3 * MS, 4 * MS), (4 * MS, 4 * MS), (4 * MS, 4 * MS)] * 2
    assert partial.warnings[0].startswith("partial results: the run ended at 4 ms, 4 of 10 tasks done: rank 1 is lost")
    told = document(partial, summarise(partial))
    assert told["answer"].startswith("partial results: step 4 ms")
    assert told["events"]["partial"]["tasks_done"] == 4
    assert told["events"]["baseline_ps"] == 15 * MS


def test_a_rank_lost_after_the_end_is_no_loss(diamond, tmp_path):
    trace = graph(program([compute(0, MS)]))
    result = run(trace, diamond, [{"at": "1s", "rank": 0, "lost": True}], tmp_path)
    assert result.makespan == MS
    assert any("over before event 1" in warning for warning in result.warnings)


def test_unaffected_ranks_run_as_ever(diamond, tmp_path):
    """Runs of tasks on ranks that no event names are merged all the same: spans are equal."""
    rows = [compute(n, (n + 1) * MS, [n - 1] if n else []) for n in range(8)]
    trace = graph(program(rows), program(rows))
    plain = simulate(trace, diamond)
    result = run(trace, diamond, [{"at": "3ms", "rank": 1, "slow": 3}], tmp_path)
    for name in ("start", "end", "ready", "released_by"):
        assert getattr(plain.spans(), name)[:8].tolist() == getattr(result.spans(), name)[:8].tolist()
    slowed = result.spans()
    assert (slowed.end[8:] - slowed.start[8:]).tolist() == [MS, 2 * MS] + [3 * n * MS for n in range(3, 9)]


# --- links ---------------------------------------------------------------------------------------------------------------


def ring_trace(ranks, size):
    return graph(*[program([compute(0, MS), all_reduce(1, size, [0])]) for _ in range(ranks)])


@pytest.mark.parametrize("level", LEVELS)
def test_an_all_reduce_with_a_link_failing_at_every_instant_of_a_grid(level, diamond, tmp_path):
    """It ends; never earlier than without; and the later routes avoid the link, the less is lost."""
    make(level, diamond)
    trace = ring_trace(4, 4 * SIZE)
    plain = simulate(trace, diamond, network=level)
    took = plain.makespan - MS
    late = 0
    for step in range(12):
        at = MS + took * step // 10
        event = {"at": f"{at}ps", "link": "leaf0-spine*", "down": True, "until": f"{at + 40_000_000}ps", "detect": "1s"}
        result = run(trace, diamond, [event], tmp_path, level)
        assert result.makespan >= plain.makespan
        late += result.makespan > plain.makespan
        into = diamond.link_dst < diamond.hosts
        sent, usual = int(result.links.bytes[into].sum()), int(plain.links.bytes[into].sum())
        assert usual - diamond.links <= sent <= usual + result.events["retransmitted_bytes"] + diamond.links
        if at >= plain.makespan:
            assert result.makespan == plain.makespan
    assert late >= 9


@pytest.mark.parametrize("level", LEVELS)
def test_a_partition_names_ranks(level, diamond, tmp_path):
    make(level, diamond)
    event = {"at": "2ms", "switch": "spine*", "down": True, "detect": "1ms"}
    with pytest.raises(PartitionError, match=r"at 3 ms \(spine\* down\): .*ranks 0-1 are cut off from ranks 2-3") as caught:
        run(ring_trace(4, 512 * SIZE), diamond, [event], tmp_path, level)
    assert caught.value.partial.makespan == 3 * MS


def test_placement_is_what_names_ranks(diamond, tmp_path):
    """Rank 0 on gpu3: the error speaks of ranks, not of hosts."""
    from distsim.api import replay
    from distsim.run_spec import RunSpec

    path = tmp_path / "events.yaml"
    path.write_text("events: [{at: 0, switch: 'spine*', down: true}]")
    spec = RunSpec(trace="x", network="analytic", events=str(path))
    with pytest.raises(PartitionError, match=r"ranks 0, 2 are cut off from ranks 1, 3|ranks 1, 3 are cut off from ranks 0, 2"):
        replay(ring_trace(4, SIZE), diamond, spec, lambda fraction, what: None, hosts=[3, 0, 2, 1])


def test_the_ideal_network_does_not_notice(diamond, tmp_path):
    events = [{"at": 0, "link": "up", "bandwidth": "1%"}]
    assert run(ring_trace(4, SIZE), diamond, events, tmp_path, "ideal").events["cost_ps"] == 0


def test_events_and_what_each_costs_alone(diamond, tmp_path):
    """On `analytic`: half the rate on all up-links from the start doubles what goes over them. A chunk goes around the ring in
    six steps, every other one over up-links."""
    events = [
        {"at": 0, "link": "up", "bandwidth": "50%"},
        {"at": 0, "rank": 2, "slow": 2},
        {"at": "500ms", "link": "port", "bandwidth": "1%"},
    ]
    said = []
    trace = ring_trace(4, 4 * SIZE)
    result = run(trace, diamond, events, tmp_path, progress=lambda fraction, what: said.append(what))
    alone = [row["alone_cost_ps"] for row in result.events["list"]]
    assert alone[1] == MS
    assert alone[0] == 3 * SER
    assert alone[2] == 0
    assert result.events["cost_ps"] == alone[0] + alone[1]
    assert next(what for what in said if "run" in what) == "preparing without events, run 1 of 5"
    assert any("event 3 alone, run 5 of 5" in what for what in said)


# --- jitter and background ---------------------------------------------------------------------------------------------------


def test_constant_jitter_is_paid_once_a_transfer(diamond, tmp_path):
    """A ring of four: a chunk takes six steps, every other one over up-links."""
    trace = ring_trace(4, 4 * SIZE)
    event = {"at": 0, "link": "up", "jitter": {"mean": "3us", "distribution": "constant"}}
    for level in LEVELS:
        assert run(trace, diamond, [event], tmp_path, level).events["cost_ps"] == pytest.approx(3 * 3_000_000, abs=10)
    # not while it does not last, and not on other links
    later = event | {"at": "900ms"}
    assert run(trace, diamond, [later], tmp_path).events["cost_ps"] == 0
    pair = ring_trace(2, 4 * SIZE)
    assert run(pair, diamond, [event], tmp_path).events["cost_ps"] == 0


def test_jitter_is_seeded(diamond, tmp_path):
    trace = ring_trace(4, 4 * SIZE)
    event = {"at": 0, "link": "up", "jitter": {"mean": "3us"}}
    costs = [run(trace, diamond, {"seed": seed, "events": [event]}, tmp_path).events["cost_ps"] for seed in (1, 1, 2)]
    assert costs[0] == costs[1] != costs[2]
    assert min(costs) > 0
    uniform = event | {"jitter": {"mean": "3us", "distribution": "uniform"}}
    cost = run(trace, diamond, [uniform], tmp_path).events["cost_ps"]
    assert 0 < cost < 3 * 6_000_000


def test_background_takes_its_share(diamond, tmp_path):
    """gpu0 sends to gpu1; another flow over the same port, as long, from the same instant: on `fluid` both at half the rate."""
    send = (0, NodeType.COMM_SEND, [], {"bytes": SIZE, "peer": 1, "tag": 3})
    receive = (0, NodeType.COMM_RECV, [], {"bytes": SIZE, "peer": 0, "tag": 3})
    trace = graph(program([send]), program([receive]))
    event = {"at": 0, "background": {"from": "gpu0", "to": "gpu1", "bytes": "1MiB"}}
    expected = {"fluid": SER, "analytic": 0, "cut_through": SER, "chunk": SER}
    for level in LEVELS:
        result = run(trace, diamond, [event], tmp_path, level)
        assert result.events["cost_ps"] == pytest.approx(expected[level], abs=2)
        assert result.events["background"] == {"bursts": 1, "bytes": SIZE}


def test_background_stops_with_the_workload_and_never_is_the_end_of_it(diamond, tmp_path):
    trace = graph(program([compute(0, 10 * MS)]))
    event = {"at": "1ms", "background": {"from": "gpu[0-1]", "to": "gpu[2-3]", "pairs": "all", "bytes": "8MiB", "every": "4ms",
                                        "count": 1000}}  # fmt: skip
    result = run(trace, diamond, [event], tmp_path, "cut_through")
    assert result.makespan == 10 * MS
    assert result.events["background"] == {"bursts": 3, "bytes": 3 * 4 * 8 * SIZE}


# --- the rest ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_again(level, diamond, tmp_path):
    make(level, diamond)
    events = {"seed": 3, "events": [
        {"at": "1.05ms", "link": "leaf0-spine0", "down": True, "detect": "20us"},
        {"at": 0, "link": "up", "jitter": {"mean": "1us"}},
        {"at": "1ms", "background": {"from": "gpu0", "to": "gpu3", "bytes": "1MiB", "every": "50us", "count": 5}},
        {"at": "0.5ms", "rank": 3, "slow": 1.7},
    ]}  # fmt: skip
    documents = []
    for _ in range(2):
        result = run(ring_trace(4, 4 * SIZE), diamond, events, tmp_path, level)
        documents.append(json.dumps(document(result, summarise(result))))
    assert documents[0] == documents[1]


def test_no_events_no_difference(diamond, tmp_path):
    """An empty list is the run without: everything but the option in the specification is equal."""
    trace = ring_trace(4, 4 * SIZE)
    plain = simulate(trace, diamond)
    empty = run(trace, diamond, [], tmp_path)
    for made in (plain, empty):
        assert made.events == {}
    left, right = (document(made, summarise(made)) for made in (simulate(trace, diamond, network="analytic"), empty))
    for key in left:
        if key not in ("spec", "command", "provenance"):
            assert left[key] == right[key], key


def test_a_level_that_cannot_change_says_so(diamond, tmp_path):
    from distsim.events.conduct import Conductor
    from distsim.events.model import events_of
    from distsim.kernel.clock import Clock

    events = events_of({"events": [{"at": 0, "link": "up", "bandwidth": "50%"}]})
    with pytest.raises(ConfigError, match="cannot change links"):
        Conductor(events, Clock(), diamond, object(), range(4))


def test_command_line(tmp_path, capsys):
    path = tmp_path / "e.yaml"
    path.write_text("seed: 4\nevents:\n  - {at: 5ms, rank: 1, slow: 1.5}\n  - {at: 0, link: host, bandwidth: 50%}\n")
    command = ["run", "pipeline_send_recv", "--network", "analytic", "--events", str(path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "events cost" in out
    assert "at 5ms, rank 1: slow 1.5 - alone" in out
    assert main([*command, "--json", "-o", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["events"]["cost_ps"] == told["makespan_ps"] - told["events"]["baseline_ps"] > 0
    assert told["provenance"]["seed"] == 4
    assert str(path) in told["provenance"]["inputs"]
    assert "--events" in told["command"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["events"] == told["events"]


def test_command_line_of_a_run_that_ends_early(tmp_path, capsys):
    path = tmp_path / "e.yaml"
    path.write_text("events: [{at: 5ms, rank: 1, lost: true}]")
    command = ["run", "pipeline_send_recv", "--network", "analytic", "--events", str(path), "-o", str(tmp_path / "out")]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert out.startswith("partial results: step 5 ms")
    assert "rank 1 is lost and nobody replaces it" in err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["events"]["partial"]["at_ps"] == 5 * MS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("events: [{at: 5ms, rank: 4, lost: true}]", "there is no rank 4"),
        ("events: [{at: 5ms, link: leaf0-spin0, down: true}]", "names no link"),
        ("events: [{at: 5ms, switch: leaf77, down: true}]", "Nearest: leaf"),
        ("events: [{at: 5ms, link: host, bandwidth: 900Gbps}]", "better than"),
        ("events: [{at: 5ms, background: {from: gpu0, to: gpu0, bytes: 5}}]", "nobody sends"),
        ("events: [", "readable YAML"),
    ],
)
def test_command_line_with_bad_files(tmp_path, capsys, text, said):
    path = tmp_path / "e.yaml"
    path.write_text(text)
    assert main(["run", "pipeline_send_recv", "--network", "analytic", "--events", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_profile_astra_refuses_events(tmp_path, capsys):
    path = tmp_path / "e.yaml"
    path.write_text("events: [{at: 5ms, rank: 1, slow: 2}]")
    assert main(["run", "pipeline_send_recv", "--profile", "astra", "--topo", "ring", "--events", str(path)]) == 2
    assert "--profile astra knows no timed events" in capsys.readouterr().err
