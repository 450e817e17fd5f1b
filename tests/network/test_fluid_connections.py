"""Level fluid, connections: what a group sends from one host to another goes one row after the other."""

import dataclasses

import numpy as np
import pytest
from fluid_reference import scenario_of, simulate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from network_reference import dag
from test_fluid_change import parallel

from distsim.collectives.schedule import Collective, schedule
from distsim.engine.placement import place
from distsim.errors import ConfigError
from distsim.network.check import drain, kernels, pair, random_transfers, star
from distsim.network.fluid import Fluid
from distsim.network.fluid_kernel import ACTIVE
from distsim.network.model import NEVER
from distsim.network.spec import build_network
from distsim.network.transfers import single
from distsim.topology.graph import Topology
from distsim.topology.spec import build

MB = 1_000_000
LATENCY = 1_000_000  # ps, of a route over the star
T = MB * 20  # ps that a megabyte takes at 50 GB/s


def watched(rows, hosts):
    """The rows, and behind each an empty row of a host of its own, which tells when it is delivered."""
    return dag([*rows, *((hosts + n, hosts + n, 0, [n]) for n in range(len(rows)))])


def ends_of(rows, hosts=4, **options):
    """ps at which every row is delivered, on a star of 50 GB/s."""
    network = Fluid(star(hosts + len(rows)), **options)
    network.start(watched(rows, hosts), 0)
    (done,) = network.run_until(NEVER)
    return [done.host_end[hosts + n] for n in range(len(rows))]


def test_two_rows_of_a_connection_end_one_after_the_other(form):
    rows = [(0, 1, MB), (0, 1, MB)]
    assert ends_of(rows) == [LATENCY + T, LATENCY + 2 * T]
    assert ends_of(rows, ordered=False) == [LATENCY + 2 * T] * 2


def test_groups_are_connections_of_their_own(form):
    network = Fluid(star(2))
    for _ in range(2):
        network.start(single(0, 1, MB), 0)
    assert [done.at for done in network.run_until(NEVER)] == [LATENCY + 2 * T] * 2
    # a second row of the first group waits for its share, not for the other group
    network = Fluid(star(2))
    network.start(dag([(0, 1, MB), (0, 1, MB)]), 0)
    network.start(single(0, 1, MB), 0)
    assert [(done.group, done.at) for done in network.run_until(NEVER)] == [(1, LATENCY + 2 * T)]
    assert [(done.group, done.at) for done in network.run_until(NEVER)] == [(0, LATENCY + 3 * T)]


def test_a_backlog_gains_no_share(form):
    """Four rows from host 0 and one from host 1 into host 2: half of the link each, while both have something to send."""
    rows = [(0, 2, MB)] * 4 + [(1, 2, MB)]
    assert ends_of(rows) == [LATENCY + n * T for n in (2, 3, 4, 5, 2)]
    assert ends_of(rows, ordered=False) == [LATENCY + 5 * T] * 5


def test_rows_due_at_once_go_by_number_others_by_time(form):
    """The local rows end at 0 in this order, so that row 3 is released before row 2; row 4 is due later than either."""
    rows = [(3, 3, 0), (3, 3, 0), (0, 1, MB, [1]), (0, 1, 2 * MB, [0]), (3, 3, 0, [], 7), (0, 1, 3 * MB, [4])]
    assert ends_of(rows)[2::3] == [LATENCY + T, LATENCY + 6 * T]
    assert ends_of(rows)[3] == LATENCY + 3 * T
    # a larger number that is due first goes first
    rows = [(3, 3, 0, [], 7), (0, 1, MB, [0]), (0, 1, 2 * MB)]
    assert ends_of(rows)[1:] == [LATENCY + 3 * T, LATENCY + 2 * T]


def test_many_due_at_once_in_the_opposite_order(form):
    """Row n of 20 is released by the local row 19 - n: they go by number all the same."""
    rows = [(3, 3, 0)] * 20 + [(0, 1, MB, [19 - n]) for n in range(20)]
    assert ends_of(rows)[20:] == [LATENCY + (n + 1) * T for n in range(20)]


def slow_at_host_0(topology):
    bandwidth = topology.link_bandwidth.copy()
    bandwidth[:2] /= 4
    return dataclasses.replace(topology, link_bandwidth=bandwidth)


def test_a_ring_with_one_slow_member_takes_its_steps_over_the_slow_link(form):
    """All-gather of 8 x 1 MiB on a star: the slow host gets and sends 7 messages; the last of its own follow at full speed."""
    transfers = place(schedule("ring", Collective("all_gather", 8, 1 << 20)), np.arange(8, dtype=np.int32))
    ends = {}
    for level in ("fluid", "cut_through", "fluid:ordered=false"):
        network = build_network(level, slow_at_host_0(star(8)))
        network.start(transfers, 0)
        ends[level] = network.run_until(NEVER)[0].at
    step = (1 << 20) * 80  # ps at 12.5 GB/s
    assert ends["fluid"] == ends["cut_through"]
    assert 7 * step + LATENCY <= ends["fluid"] < 7.1 * step
    assert ends["fluid:ordered=false"] > 10 * step


def test_nothing_queues_in_a_ring_on_equal_links(form):
    transfers = place(schedule("ring", Collective("all_reduce", 8, 1 << 20)), np.arange(8, dtype=np.int32))
    answers = []
    for ordered in (True, False):
        network = Fluid(build("fat_tree:k=4"), ordered=ordered)
        network.start(transfers, 3)
        answers.append((drain(network), network.solves, network.events))
    assert answers[0] == answers[1]


def test_what_follows_on_a_connection_costs_no_solve():
    network = Fluid(star(3))
    network.start(dag([(0, 1, MB)] * 100 + [(2, 1, 200 * MB)]), 0)
    network.run_until(NEVER)
    assert network.solves == 2  # at the start, and when the hundred are through
    assert network.events == 2 * 101
    assert network.delivered == 101


def test_links_that_are_not_shared_divide_nothing_and_order_nothing(form):
    network = Fluid(star(2), uncontended=np.ones(4, dtype=bool))
    network.start(dag([(0, 1, MB)] * 3), 0)
    assert network.run_until(NEVER)[0].at == LATENCY + T


def test_empty_and_local_rows_do_not_queue(form):
    assert ends_of([(0, 1, MB), (0, 1, 0), (0, 0, MB), (0, 1, MB)]) == [LATENCY + T, LATENCY, 0, LATENCY + 2 * T]


def test_lanes_are_connections_of_their_own(form):
    """Two equal cables: rows of a lane go one after the other, the lanes beside one another."""
    rows = dag([(0, 1, MB)] * 4)
    network = Fluid(parallel(ways=2))
    network.start(dataclasses.replace(rows, lane=np.array([0, 1, 0, 1], dtype=np.int32)), 0)
    assert network.run_until(NEVER)[0].at == 1_000_000 + 2 * 1_000_000_000
    # where rows choose their way, each way is one
    network = Fluid(parallel(bandwidth=(1e9, 3e9), ways=2, chooses=True))
    network.start(rows, 0)
    network.run_until(500_000_000)
    assert sorted(moving(network)) == [0, 2]  # three rows have chosen the fast cable: one of them moves
    assert network.run_until(NEVER)[0].at == 1_001_000_002  # thirds of a millisecond, rounded up


def moving(network):
    """First link of every flow that moves."""
    links = network._links
    flows = (int(links._flows["order"][at]) for at in range(int(links._state["value"][ACTIVE])))
    return [int(links._nodes["link"][flow * links._stride]) for flow in flows]


def test_ordered_is_an_option_of_the_level():
    network = build_network("fluid:ordered=false", star(2))
    network.start(dag([(0, 1, MB)] * 2), 0)
    network.run_until(LATENCY + T)
    assert network.delivered == 0
    with pytest.raises(ConfigError, match="ordered=maybe"):
        build_network("fluid:ordered=maybe", star(2))


@st.composite
def loads(draw):
    """Rows between 3 hosts with latencies, dependencies and backlogs."""
    rows = []
    for number in range(draw(st.integers(1, 14))):
        deps = draw(st.lists(st.integers(0, number - 1), max_size=2, unique=True)) if number else []
        src = draw(st.integers(0, 2))
        size = draw(st.sampled_from([0, 1000, 20_000, 60_000, 100_001]))
        rows.append((src, (src + draw(st.integers(1, 2))) % 3, size, deps))
    return rows


@settings(max_examples=150, deadline=None)
@given(loads(), st.booleans())
def test_law_connections_are_max_min_one_row_each(rows, ordered):
    """Against the oracle in fractions; an end may be rounded up by a ps for every end before it."""
    topology = star(3, bandwidth=1e9)
    routes = [(2 * src, 2 * dst + 1) for src, dst, *_ in rows]
    links = [(1e9, 500_000 * 1e-12)] * topology.links
    flows = [(0, size, deps, route) for (_, _, size, deps), route in zip(rows, routes, strict=True)]
    exact = simulate(scenario_of(links, flows), connection=routes if ordered else None)
    freed = [(route, max(exact[dep] for dep in row[3])) for route, row in zip(routes, rows, strict=True) if row[3]]
    assume(not ordered or len(set(freed)) == len(freed))  # of two of a connection freed at once, neither need be first
    network = Fluid(star(3 + len(rows), bandwidth=1e9), ordered=ordered)
    network.start(watched(rows, 3), 0)
    (done,) = network.run_until(NEVER)
    found = [done.host_end[3 + n] for n in range(len(rows))]
    assert found == pytest.approx([float(end * 10**12) for end in exact], abs=100)


def test_law_5_forms_and_slices_agree_under_a_backlog():
    """Few hosts, many rows: nearly all of them queue. Sizes are many and shares thirds."""

    def answer(form, step):
        with kernels(form):
            network = Fluid(star(3))
            for seed in range(3):
                network.start(random_transfers(3, 80, seed=seed), seed * 300_000)
            limits = None if step is None else iter(range(0, 10**12, step))
            return drain(network, limits), network.usage().busy.tolist(), network.events

    whole = answer("python", None)
    assert whole == answer("compiled", None) == answer("python", 99_991) == answer("compiled", 1_234_567)


def test_queued_rows_take_the_new_route(form):
    """Half of the first is through; the other half and the second go over the other cable, whose latency they wait once."""
    network = Fluid(parallel(bandwidth=(1e9, 2e9)))
    network.start(dag([(0, 1, MB), (0, 1, MB), (0, 1, MB)]), 0)
    network.run_until(501_000_000)
    network.change(parallel(link=2, bandwidth=(0, 2e9)))
    assert network.run_until(NEVER)[0].at == 501_000_000 + 1_000_000 + 250_000_000 + 2 * 500_000_000
    assert network.usage().bytes.tolist() == [500_000, 0, 2_500_000, 0]
    assert network.delivered == 3


@pytest.mark.parametrize("link", [0, 2])
def test_a_change_keeps_the_order(link, form):
    """Row 2 was due before row 1, and half of it is through: whatever the new route, row 1 waits for it."""
    rows = [(0, 0, 0, [], 7), (0, 1, MB, [0]), (0, 1, MB), (1, 0, 0, [2])]
    network = Fluid(parallel())
    network.start(dag(rows), 0)
    network.run_until(501_000_000)
    network.change(parallel(link=link))
    again = 0 if link == 0 else 1_000_000
    (done,) = network.run_until(NEVER)
    # the answer to row 2 is there, one latency later, before row 1 is
    assert done.at == 2_001_000_000 + again
    first = [end for end in network._links.rows["end"] if end]
    assert 1_001_000_000 + again in first


def test_a_dead_link_holds_the_queue(form):
    network = Fluid(parallel())
    network.start(dag([(0, 1, MB)] * 3), 0)
    network.run_until(501_000_000)
    dead = parallel()
    dead.link_bandwidth[0] = 0
    network.change(dead)
    network.run_until(2_000_000_000)
    assert network.next_event() == NEVER
    network.change(parallel())
    assert network.run_until(NEVER)[0].at == 2_000_000_000 + 2_500_000_000


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(1, 400_000_000), st.integers(0, 3)), max_size=6), st.booleans())
def test_law_1_queues_survive_any_change(seed, changes, chooses):
    """Backlogs over two cables that take turns, with rows that choose and rows that do not; nothing is lost or sent twice."""
    dice = np.random.default_rng(seed)
    before = [[int(dice.integers(0, n))] if n and dice.random() < 0.3 else [] for n in range(20)]
    rows = [(src, 1 - src, int(dice.integers(0, 500_000)), deps) for src, deps in zip([0, 0, 1, 0] * 5, before, strict=True)]
    states: list[Topology] = [
        parallel(link=0 if chooses else link, bandwidth=bandwidth, ways=2 if chooses else 1, chooses=chooses)
        for link, bandwidth in ((0, (1e9, 1e9)), (2, (1e9, 1e9)), (0, (2e9, 5e8)), (2, (5e8, 0)))
    ]
    network = Fluid(states[0])
    network.start(dag(rows), 0)
    network.start(dag(rows), 1000)
    now, reports = 0, 0
    for step, which in changes:
        now += step
        while network.now < now:
            reports += len(network.run_until(now))
        network.change(states[which])
    network.change(states[0])
    reports += len(drain(network))
    assert (reports, network.delivered) == (2, 40)
    assert sum(network.usage().bytes.tolist()) == 2 * sum(row[2] for row in rows)


def test_a_cable_between_two_hosts_is_used_to_the_last_picosecond(form):
    """Ends are rounded up row by row, as on a queue."""
    network = Fluid(pair(3e9))
    network.start(dag([(0, 1, 1000)] * 10), 0)
    assert network.run_until(NEVER)[0].at == 500_000 + 10 * 333_334
