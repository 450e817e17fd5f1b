"""What levels do when links change: closed forms, conservation, determinism."""

import dataclasses

import numpy as np
import pytest
from events_network import LEVELS, make, route, spine_of, with_links
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import PartitionError
from distsim.network.check import drain, kernels, pair, random_transfers
from distsim.network.chunk import Chunk
from distsim.network.cut_through import CutThrough
from distsim.network.model import NEVER
from distsim.network.transfers import single
from distsim.topology.reroute import altered
from distsim.topology.routed import routed
from distsim.topology.spec import build

SIZE = 1 << 20
SER = 20_971_520  #: ps of SIZE at 50 GB/s
HOP = 500_000  #: ps
FIFO = ("cut_through", "chunk")


def alone(level, hops=4):
    """ps of SIZE over idle links."""
    return hops * (HOP + SER) if level == "chunk" else hops * HOP + SER


def finish(network, changes=()):
    """Run dry with (time, topology) changes on the way; {group: ps}, none twice."""
    seen = {}

    def run(limit):
        while network.next_event() <= limit:
            for done in network.run_until(limit):
                assert done.group not in seen
                seen[done.group] = done.at
                assert max(done.host_end.values(), default=done.at) == done.at
            if network.next_event() > limit:
                break

    for at, topology in changes:
        run(at)
        assert network.run_until(at) == []
        network.change(topology)
    run(NEVER - 1)
    return seen


@pytest.mark.parametrize("level", LEVELS)
def test_a_link_degraded_half_way(level):
    fast, slow = pair(50e9), pair(25e9)
    network = make(level, fast)
    network.start(single(0, 1, SIZE), 0)
    half = HOP + SER // 2
    end = finish(network, [(half, slow)])[0]
    if level == "fluid":
        assert end == pytest.approx(half + SER, abs=2)  # half of the bytes, at half the rate
    elif level == "analytic":
        whole = HOP + 2 * SER
        assert end == half + -(-(HOP + SER - half) * whole // (HOP + SER))  # the rest is that share of the slower whole
    else:
        assert end == HOP + SER  # what is in a queue keeps its turn; what joins from now on meets the new rate
        network.start(single(0, 1, SIZE), end)
        assert finish(network)[1] == end + HOP + 2 * SER


@pytest.mark.parametrize("level", LEVELS)
def test_what_starts_while_a_link_is_slow_takes_longer_and_after_that_does_not(level):
    fast, slow = pair(50e9), pair(25e9)
    network = make(level, fast)
    assert finish(network, [(1000, slow)]) == {}
    network.start(single(0, 1, SIZE), 2000)
    end = finish(network)[0]
    assert end == pytest.approx(2000 + HOP + 2 * SER, abs=2)
    network.change(fast)
    network.start(single(0, 1, SIZE), end)
    assert finish(network)[1] == pytest.approx(end + HOP + SER, abs=2)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("detect", [0, 3_000_000])
def test_a_dead_link_is_avoided_after_its_detection(level, detect, diamond):
    dead = spine_of(diamond, 0, 2)
    cut, around = with_links(diamond, {dead: 0}), with_links(diamond, {dead: 0}, avoid=(dead,))
    network = make(level, diamond)
    network.start(single(0, 2, SIZE), 0)
    down = 2 * HOP + SER // 2 if level != "chunk" else HOP + SER + SER // 2  # on its second link
    changes = [(down, cut), (down + detect, around)] if detect else [(down, around)]
    end = finish(network, changes)[0]
    if level in FIFO:
        # sent again, whole; where it cuts through, its source is busy with the first one until the last byte has left
        again = max(down + detect, SER) if level == "cut_through" else down + detect
        assert end == again + alone(level)
        assert network.retransmitted == SIZE
    elif level == "analytic":
        assert end == alone(level) + detect  # stood still meanwhile
    else:
        assert end >= alone(level) + detect - 2
        assert end <= alone(level) + detect + 4 * HOP + 2  # and the latencies of the new route, at most
    # who starts now goes around, as fast as before
    network.start(single(0, 2, SIZE), end)
    assert finish(network)[1] == pytest.approx(end + alone(level), abs=2)


@pytest.mark.parametrize("level", LEVELS)
def test_who_starts_over_a_dead_link_waits_for_its_detection(level, diamond):
    dead = spine_of(diamond, 0, 2)
    network = make(level, diamond)
    network.change(with_links(diamond, {dead: 0}))
    network.start(single(0, 2, SIZE), 100)
    network.start(single(0, 1, SIZE), 100)
    ends = finish(network, [(50_000_000, with_links(diamond, {dead: 0}, avoid=(dead,)))])
    assert ends[1] == pytest.approx(100 + alone(level, 2), abs=2)  # not concerned
    assert ends[0] == pytest.approx(50_000_000 + alone(level), abs=2 if level != "fluid" else 4 * HOP + 2)
    assert getattr(network, "retransmitted", 0) == 0  # nothing had set out


@pytest.mark.parametrize("level", LEVELS)
def test_a_link_that_comes_back_unnoticed_is_used_again(level, diamond):
    dead = spine_of(diamond, 0, 2)
    network = make(level, diamond)
    network.start(single(0, 2, SIZE), 0)
    ends = finish(network, [(3_000_000, with_links(diamond, {dead: 0})), (5_000_000, diamond)])
    assert ends[0] >= alone(level) + 2_000_000 - 2
    sent = network.usage().bytes
    assert sent[diamond.paths(np.array([0], np.int32), np.array([2], np.int32))[1]].min() >= SIZE


@pytest.mark.parametrize("level", LEVELS)
def test_a_partition_names_hosts_and_only_when_somebody_needs_the_way(level, diamond):
    cables = {"leaf0-spine0": 0, "leaf0-spine1": 0}
    cut = with_links(diamond, cables, avoid=tuple(cables))
    network = make(level, diamond)
    network.start(single(0, 1, SIZE), 0)
    assert finish(network, [(1_000_000, cut)])[0] == pytest.approx(alone(level, 2), abs=2)
    with pytest.raises(PartitionError, match="gpu0, gpu1 are cut off from gpu2, gpu3"):
        network.start(single(0, 3, SIZE), 100_000_000)
    network = make(level, diamond)
    network.start(single(0, 3, SIZE), 0)
    with pytest.raises(PartitionError, match="gpu0, gpu1 are cut off from gpu2, gpu3"):
        finish(network, [(1_000_000, cut)])
    network.usage()  # partial results are still to be had


@pytest.mark.parametrize("level", FIFO)
def test_lost_bytes_are_counted_apart(level, diamond):
    """Two messages over one dead link: the one on the wire is lost, the one still in its source's queue is only held."""
    dead = spine_of(diamond, 0, 2)
    other = next(dst for dst in (2, 3) if spine_of(diamond, 0, dst) == dead)
    network = make(level, diamond)
    network.start(single(0, 2, SIZE), 0)
    network.start(single(0, other, SIZE), 0)
    down = SER // 2
    ends = finish(network, [(down, with_links(diamond, {dead: 0}, avoid=(dead,)))])
    assert len(ends) == 2
    assert network.retransmitted == SIZE
    used = network.usage().bytes
    assert used[diamond.paths(np.array([0], np.int32), np.array([1], np.int32))[1][0]] == 3 * SIZE  # gpu0->leaf0: one twice


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_law_1_every_row_is_delivered_once_whatever_fails(level, data):
    """Random DAGs, failures, repairs and degradations: every group is reported once, and the bytes over the links into hosts
    are those asked for and those sent again."""
    topology = build("fat_tree:k=4")
    dice = data.draw(st.randoms(use_true_random=False))
    dags = [random_transfers(topology.hosts, dice.choice([1, 5, 30]), dice.randrange(1 << 30)) for _ in range(4)]
    starts = sorted(dice.randrange(0, 60_000_000) for _ in dags)
    inner = [c for c in range(topology.links // 2) if topology.link_src[2 * c] >= topology.hosts]  # no host is cut off by one
    moments = sorted(dice.randrange(0, 80_000_000) for _ in range(4))
    changes = []
    for moment in moments:
        bandwidth = topology.link_bandwidth.copy()
        avoid = np.zeros(topology.links, bool)
        cable = dice.choice(inner)
        kind = dice.choice(["down", "unseen", "slow", "well"])
        if kind == "slow":
            bandwidth[[2 * cable, 2 * cable + 1]] /= 7
        elif kind != "well":
            bandwidth[[2 * cable, 2 * cable + 1]] = 0
            avoid[[2 * cable, 2 * cable + 1]] = kind == "down"
        changes.append((moment, altered(topology, bandwidth, topology.link_latency, avoid)))
    changes.append((90_000_000, topology))
    runs = []
    for form in ("python", "compiled", "python"):
        with kernels(form):
            network = make(level, topology)
            runs.append(_play(network, dags, starts, changes))
            used = network.usage().bytes
    assert runs[0] == runs[1] == runs[2]  # the same in either form, and again
    assert sorted(runs[0]) == list(range(len(dags)))
    into = topology.link_dst < topology.hosts
    asked = sum(int(dag.bytes[dag.src != dag.dst].sum()) for dag in dags)
    extra = getattr(network, "retransmitted", 0)
    assert asked <= int(used[into].sum()) + len(dags) * topology.links  # what was lost may not have come so far
    assert int(used[into].sum()) <= asked + extra + len(dags) * topology.links


def _play(network, dags, starts, changes):
    """Starts and changes in time order; {group: ps}."""
    seen, steps = {}, sorted([(at, 1, dag) for at, dag in zip(starts, dags, strict=True)] + [(at, 0, c) for at, c in changes],
                             key=lambda step: step[:2])  # fmt: skip
    for at, kind, what in steps:
        while found := network.run_until(at):
            for done in found:
                assert done.group not in seen
                seen[done.group] = done.at
        if kind:
            network.start(what, at)
        else:
            network.change(what)
    for group, at, _ in drain(network):
        assert group not in seen
        seen[group] = at
    return seen


@pytest.mark.parametrize("level", LEVELS)
def test_leases_and_episodes_know_nothing_of_other_times(level, diamond):
    """What was remembered on the network as it was is not told of it as it is."""
    slow = with_links(diamond, {"gpu0-leaf0": 5e9})
    network, message = make(level, diamond), single(0, 2, SIZE)
    ends = []
    for repeat in range(3):
        for topology in (diamond, slow):
            network.change(topology)
            at = (2 * repeat + (topology is slow)) * 1_000_000_000
            for _ in range(2):
                group = network.start(message, at)
            ends.append(max(done[1] for done in drain(network)) - at)
            assert group
    assert len({round(end / 1000) for end in ends[::2]}) == 1
    assert len({round(end / 1000) for end in ends[1::2]}) == 1
    assert ends[1] > 4 * ends[0]


@pytest.mark.parametrize("level", FIFO)
def test_with_and_without_leases_the_same(level, diamond):
    from distsim.network.chunk import Chunk
    from distsim.network.cut_through import CutThrough

    kind = {"chunk": Chunk, "cut_through": CutThrough}[level]
    dead = spine_of(diamond, 0, 2)
    for down in range(0, 60_000_000, 7_000_001):
        changes = [(down, with_links(diamond, {dead: 0})), (down + 5_000_000, with_links(diamond, {dead: 0}, avoid=(dead,)))]
        runs = []
        for leases in (True, False):
            network = kind(diamond, leases=leases)
            for number in range(3):
                network.start(random_transfers(4, 12, number), 0)
            runs.append((finish(network, changes), network.retransmitted, network.usage().bytes.tolist()))
        assert runs[0] == runs[1]


@pytest.mark.parametrize("level", [*LEVELS, "chunk:size=100KB,credits=2", "cut_through:injection=30GB/s"])
@pytest.mark.parametrize("policy", ["static", "adaptive", "spray"])
def test_a_change_to_what_is_already_changes_nothing(level, policy):
    topology = routed(policy, build("fat_tree:k=4"))
    dags = [random_transfers(16, rows, rows) for rows in (40, 7, 60)]
    ends = []
    for changes in ((), (0, 1_000_000, 3_333_333, 12_000_000)):
        network = make(level, topology)
        ends.append(_play(network, dags, (0, 500_000, 3_333_333), [(at, topology) for at in changes]))
        used = network.usage()
        ends[-1] |= {"bytes": int(used.bytes.sum()), "busy": int(used.busy.sum())}
    tolerance = 2 if level == "fluid" else 0  # picoseconds of float64
    assert ends[1] == pytest.approx(ends[0], abs=tolerance, rel=0 if level != "fluid" else 1e-6)


def test_a_closed_form_is_stretched_as_its_rows_are(diamond):
    """Level `analytic` believes ``alone`` on the links as they were built; on slower ones it takes as many times as long as the
    rows do, and back on the old ones what it took."""
    message = dataclasses.replace(single(0, 1, SIZE), alone=7_000_000)
    slow = with_links(diamond, {"gpu0-leaf0": 25e9})
    network = make("analytic", diamond)
    stretched = -(-7_000_000 * (2 * HOP + 2 * SER) // (2 * HOP + SER))
    for at, (topology, takes) in enumerate(((diamond, 7_000_000), (slow, stretched), (diamond, 7_000_000))):
        network.change(topology)
        group = network.start(message, at * 1_000_000_000)
        assert finish(network)[group] == at * 1_000_000_000 + takes
        assert network.run_until((at + 1) * 1_000_000_000) == []


def test_adaptive_routing_leaves_a_dead_link_at_once():
    """Its switch knows without detection that a port is down."""
    topology = routed("adaptive", build("fat_tree:k=4"))
    name = route(topology, 0, 15)[1].split("->")
    network = make("chunk", topology)
    network.change(with_links(topology, {"-".join(name): 0}))
    network.start(single(0, 15, SIZE), 0)
    assert finish(network)[0] == 6 * (HOP + SER)


@pytest.mark.parametrize("level", FIFO)
def test_an_episode_told_from_memory_goes_on_over_the_routes_that_it_took(level):
    """What contends is remembered and told again; where links change in its midst, it is replayed before they do."""
    topology = build("fat_tree:k=4")
    cable, (large, small) = spine_of(topology, 0, 7), (single(0, 7, 4 * SIZE), single(1, 7, SIZE))
    ends = {}
    for leases in (True, False):
        network = {"cut_through": CutThrough, "chunk": Chunk}[level](topology, leases=leases)
        seen, now = {}, 0
        for turn in range(3):
            groups = [network.start(large, now), network.start(small, now + 1)]
            if turn == 2:
                middle = now + 3 * SER
                while network.next_event() <= middle:
                    seen |= {done.group: done.at for done in network.run_until(middle)}
                assert network.run_until(middle) == []
                network.change(with_links(topology, {cable: 0.0}, avoid=(cable,)))
            while not set(groups) <= set(seen):
                seen |= {done.group: done.at for done in network.run_until(NEVER - 1)}
            now = max(seen.values()) + 1_000
        ends[leases] = seen
    assert ends[True] == ends[False]
