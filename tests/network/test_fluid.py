"""Level fluid: hand cases, an oracle in fractions, the conditions of max-min fairness, closed forms, costs."""

import math

import numpy as np
import pytest
from fluid_reference import scenario_of, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import dag

from distsim.collectives.schedule import Collective, schedule
from distsim.engine.placement import place
from distsim.errors import ConfigError
from distsim.network.analytic import Analytic
from distsim.network.check import drain, kernels, pair, random_transfers, star
from distsim.network.flow_times import flow_times
from distsim.network.fluid import Fluid
from distsim.network.fluid_kernel import ACTIVE, DIRTY
from distsim.network.model import NEVER
from distsim.network.spec import build_network
from distsim.network.transfers import single
from distsim.topology.spec import build

GB = 1e9


def finish(scenario, network="fluid"):
    return flow_times(scenario, network).finish.tolist()


def test_parking_lot(form):
    """Rates 1/2, 1/2, 3/2, 1/2 GB/s; the third ends at 2/3 s, the fourth at 1 s, which changes nothing for the first two."""
    links = [(GB, 0), (2 * GB, 0), (GB, 0)]
    flows = [(0, GB, (), (0, 1, 2)), (0, GB, (), (0,)), (0, GB, (), (1,)), (0, GB / 2, (), (2,))]
    assert finish(scenario_of(links, flows)) == pytest.approx([2, 2, 2 / 3, 1], rel=1e-12)


def test_incast_of_three_sizes(form):
    """15 senders, five each of 4, 8 and 12 MB, into 12.5 GB/s after 2 us: they leave in three steps."""
    links = [(12.5 * GB, 1e-6)] * 16
    flows = [(0, 4e6 * (1 + n % 3), (), (n, 15)) for n in range(15)]
    ends = sorted({round(end * 1e9) for end in finish(scenario_of(links, flows))})
    assert ends == [4_802_000, 8_002_000, 9_602_000]


def test_ring_all_reduce_is_its_closed_form(form):
    """On links of its own every step takes 80 + 6 us: 120 dependent messages of 1 MB at 12.5 GB/s over six hops of 1 us."""
    rows = [(n % 2, (n + 1) % 2, 1_000_000, [n - 1] if n else []) for n in range(120)]
    network = Fluid(pair(12.5 * GB, 6_000_000))
    network.start(dag(rows), 0)
    assert network.run_until(NEVER)[0].at == 120 * 86_000_000


def test_a_flow_that_comes_later_takes_its_share_at_once(form):
    """1 s alone at 1 GB/s, then two of 1 GB at half of it, then what is left alone."""
    scenario = scenario_of([(GB, 0)], [(0, 2 * GB, (), (0,)), (1, GB / 2, (), (0,))])
    assert finish(scenario) == pytest.approx([2.5, 2], rel=1e-12)


def test_latency_uses_no_bandwidth_and_dependencies_wait_for_delivery(form):
    scenario = scenario_of([(GB, 0.5), (GB, 0.25)], [(0, GB, (), (0,)), (0, GB, (), (0, 1)), (0, GB, (0,), (1,))])
    # flow 1 sets out at 0.75 s: flow 0 has 0.75 GB left, which it moves at half the rate, until 2.25 s
    assert finish(scenario)[:2] == pytest.approx([2.25, 2.5], rel=1e-12)
    assert finish(scenario)[2] == pytest.approx(2.5 + 1, rel=1e-12)


@st.composite
def scenarios(draw):
    link = st.tuples(st.sampled_from([1e6, 2e6, 3e6, 7.5e6, 1e7]), st.sampled_from([0, 1e-3, 0.1]))
    links = draw(st.lists(link, min_size=1, max_size=6))
    flows = []
    for number in range(draw(st.integers(1, 9))):
        route = draw(st.lists(st.integers(0, len(links) - 1), min_size=1, max_size=len(links), unique=True))
        deps = draw(st.lists(st.integers(0, number - 1), max_size=2, unique=True)) if number else []
        flows.append((draw(st.sampled_from([0, 0, 0.05, 1 / 3, 1])), draw(st.sampled_from([0, 1, 1e5, 1e6, 3e6])), deps, route))
    return scenario_of(links, flows)


@settings(max_examples=150, deadline=None)
@given(scenarios(), st.booleans(), st.sampled_from([None, 1.5e6]))
def test_law_fluid_is_max_min_at_every_instant(scenario, weighted, cap):
    options = [*(["rtt_weighted=true"] if weighted else []), *([f"cap={cap:.0f}Bps"] if cap else [])]
    network = "fluid" + (":" + ",".join(options) if options else "")
    assert finish(scenario, network) == pytest.approx([float(end) for end in simulate(scenario, weighted, cap)], rel=1e-10)


def under_way(network):
    """(links, rate of each transfer, transfers) of every flow that moves now."""
    links = network._links
    table, nodes = links._flows, links._nodes["link"]
    for at in range(int(links._state["value"][ACTIVE])):
        flow = int(table["order"][at])
        first = flow * links._stride
        crossed = [int(link) for link in nodes[first : first + table["hops"][flow]]]
        yield crossed, float(table["rate"][flow]), float(table["weight"][flow])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 3_000_000), min_size=1, max_size=5))
def test_law_no_link_is_above_capacity_and_every_flow_has_a_bottleneck(seed, steps):
    topology = star(6)
    network = Fluid(topology)
    network.start(random_transfers(6, 60, seed=seed), 0)
    now = 0
    for step in steps:
        now += step
        network.run_until(now)
        while network.now < now:
            network.run_until(now)
        state = network._links._state["value"]
        while state[DIRTY] and state[ACTIVE]:  # rates are found when an instant is left
            now += 1
            network.run_until(now)
        flows = list(under_way(network))
        load, most = {}, {}
        for links, rate, count in flows:
            for link in links:
                load[link] = load.get(link, 0) + rate * count
                most[link] = max(most.get(link, 0), rate)
        for link, amount in load.items():
            assert amount <= topology.link_bandwidth[link] * (1 + 1e-9)
        for links, rate, _ in flows:
            full = [link for link in links if load[link] >= topology.link_bandwidth[link] * (1 - 1e-9)]
            assert any(rate >= most[link] * (1 - 1e-9) for link in full)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**17), st.sampled_from([1, 3, 50e9, 53_687_091_200.0]), st.booleans())
def test_law_5_a_chain_is_what_analytic_says_at_any_date(seed, at, bandwidth, weighted):
    dice = np.random.default_rng(seed)
    rows = [
        (*dice.integers(0, 4, 2).tolist(), int(dice.integers(0, 10**6)), [n - 1] if n else [], int(dice.integers(0, 10**6)))
        for n in range(12)
    ]
    ends = []
    for level, options in ((Analytic, {}), (Fluid, {"rtt_weighted": weighted})):
        network = level(star(4, bandwidth=max(bandwidth, 1e4), latency=333_333), **options)
        network.start(dag(rows), at)
        (done,) = network.run_until(NEVER)
        ends.append((done.at, done.host_end))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("seed", range(10))
def test_law_5_links_that_are_not_shared_make_it_analytic(seed, form):
    topology = star(6)
    transfers = random_transfers(6, 80, seed=seed)
    answers = []
    for network in (Analytic(topology), Fluid(topology, uncontended=np.ones(topology.links, dtype=bool))):
        network.start(transfers, 7)
        answers.append(drain(network))
    assert answers[0] == answers[1]


def test_uncontended_links_limit_but_are_not_shared(form):
    """Two flows over one receiving link that is not shared: each as if alone; the sending link of both is."""
    topology = star(4)
    mask = np.arange(topology.links) % 2 == 1
    network = Fluid(topology, uncontended=mask)
    network.start(dag([(0, 2, 50_000), (1, 2, 50_000), (3, 1, 50_000), (3, 2, 50_000)]), 0)
    (done,) = network.run_until(NEVER)
    assert done.host_end == {0: 2_000_000, 1: 3_000_000, 2: 3_000_000, 3: 3_000_000}
    assert network.usage().bytes.tolist() == [50_000, 0, 50_000, 50_000, 0, 150_000, 100_000, 0]


def test_cap_limits_every_transfer(form):
    network = build_network("fluid:cap=25GBps", star(3))
    network.start(single(0, 1, 50_000), 0)
    assert network.run_until(NEVER)[0].at == 1_000_000 + 2_000_000
    with pytest.raises(ConfigError, match="unknown key 'cup'"):
        build_network("fluid:cup=1GBps", star(3))
    with pytest.raises(ConfigError, match="bandwidth"):
        build_network("fluid:cap=0GBps", star(3))
    with pytest.raises(ConfigError, match="mask"):
        Fluid(star(3), uncontended=np.ones(5, dtype=bool))


@pytest.mark.parametrize("name", ["ring", "halving_doubling", "direct"])
def test_collectives_on_one_switch_take_what_cut_through_says_or_what_sharing_costs(name):
    """A ring has every link to itself: levels agree to the picosecond. Bounds hold for all."""
    transfers = place(schedule(name, Collective("all_reduce", 8, 1 << 23)), np.arange(8, dtype=np.int32))
    topology = star(8)
    ends = {}
    for level in ("fluid", "cut_through", "analytic"):
        network = build_network(level, topology)
        network.start(transfers, 0)
        ends[level] = network.run_until(NEVER)[0].at
    bound = 2 * 7 / 8 * (1 << 23) / 50e9 * 1e12
    assert ends["fluid"] >= bound
    if name == "ring":
        assert ends["fluid"] == ends["cut_through"] == ends["analytic"]


@pytest.mark.parametrize("seed", range(4))
def test_law_5_forms_and_slices_agree(seed):
    def answer(form, step):
        with kernels(form):
            network = Fluid(star(5), rtt_weighted=seed % 2 == 1)
            for at in (5, 0, 0, 2_000_000):  # not in order
                network.start(random_transfers(5, 50, seed=at + seed), at)
            limits = None if step is None else iter(range(0, 10**12, step))
            return drain(network, limits), network.usage().bytes.tolist(), network.usage().busy.tolist()

    whole = answer("python", None)
    assert whole == answer("compiled", None) == answer("python", 777_777) == answer("compiled", 1_234_567)


def test_a_run_that_becomes_large_is_compiled_on_the_way_and_answers_the_same(monkeypatch):
    import distsim.network.fluid_links as fluid_links

    def answer():
        network = Fluid(star(12))
        network.start(random_transfers(12, 400, seed=3), 0)
        compiled = network._links.compiled
        return drain(network), compiled, network._links.compiled

    with kernels("python"):
        expected = answer()
    assert expected[1:] == (False, False)
    monkeypatch.setattr(fluid_links.FluidLinks, "_worth", lambda self, steps: steps < 1000 or self.compiled)
    monkeypatch.setattr(fluid_links, "_ALLOWANCE", 500)
    assert answer() == (expected[0], False, True)


def test_a_run_of_an_hour_keeps_whole_picoseconds(form):
    """3,600 messages of a second each while another moves throughout: beyond the range of the first epoch."""
    rows = [(0, 1, 10**6, [n - 1] if n else []) for n in range(3600)]
    network = Fluid(star(4, bandwidth=1e6, latency=0))
    network.start(single(2, 3, 4 * 10**9), 3)
    network.start(dag(rows), 3)
    (first,) = network.run_until(NEVER)
    assert (first.group, first.at) == (1, 3600 * 10**12 + 3)
    (second,) = network.run_until(NEVER)
    assert (second.group, second.at, second.host_end) == (0, 4000 * 10**12 + 3, {2: 4000 * 10**12 + 3, 3: 4000 * 10**12 + 3})


def test_longer_routes_later_find_room_beside_flows_that_move(form):
    """A ring: short routes first, then one over many links while those move."""
    topology = build("ring:hosts=16,bandwidth=1GBps,latency=1us")
    network = Fluid(topology)
    network.start(dag([(0, 1, 10**6), (1, 2, 10**6)]), 0)
    network.run_until(2_000_000)
    network.start(single(0, 7, 10**6), 2_000_000)
    ends = {done.group: done.at for done in _all(network)}
    # from 9 us on the long one shares both links: the others have 992,000 bytes left
    assert ends == {0: 9_000_000 + 2 * 992_000_000, 1: 9_000_000 + 992_000_000 * 2 + 8_000_000}


def _all(network):
    found = []
    while network.next_event() < NEVER:
        found += network.run_until(NEVER)
    return found


def test_alike_transfers_are_one_flow_and_a_symmetric_all_to_all_needs_few_solves():
    """Counts, not seconds: what makes the level fast is that it is asked seldom."""
    network = Fluid(star(3))
    for _ in range(50):
        network.start(single(0, 1, 1000), 0)
    network.run_until(1_000_000)  # the latencies are over
    assert [count for _, _, count in under_way(network)] == [50.0]
    for spec, most in (("switch:hosts=64", 1), ("rail_optimized:nodes=8", 8), ("fat_tree:k=8", 6)):
        topology = build(spec)
        network = Fluid(topology)
        plan = schedule("direct", Collective("all_to_all", topology.hosts, topology.hosts * 1_000_000))
        network.start(place(plan, np.arange(topology.hosts, dtype=np.int32)), 0)
        assert len(network.run_until(NEVER)) == 1
        assert network.delivered == topology.hosts * (topology.hosts - 1)
        assert network.solves <= most, spec


def test_strangers_cost_each_other_nothing():
    """Pairs that share no link: a solve looks at one of them, and rates of the others are not found again."""
    topology = star(40)
    rows = [(2 * n, 2 * n + 1, 1000 * (n + 1)) for n in range(20)]
    network = Fluid(topology)
    network.start(dag(rows), 0)
    network.run_until(NEVER)
    assert network.solves == 1  # at the start; an end touches nobody else


def test_a_time_beyond_the_clock_is_refused(form):
    network = Fluid(star(2, bandwidth=1.0))
    network.start(dag([(0, 1, 1 << 52, [n - 1] if n else []) for n in range(5)]), 0)
    with pytest.raises(ConfigError, match="2\\^62"):
        network.run_until(NEVER)
    with pytest.raises(ConfigError, match="cannot start"):
        network.start(single(0, 1, 1), -1)


def test_symmetric_flows_end_in_the_same_picosecond(form):
    """Shares that binary fractions cannot express: a third of 50 GB/s."""
    network = Fluid(star(7))
    network.start(dag([(n, 6, 1_000_003) for n in range(3)] + [(n, n - 3, 1_000_003) for n in range(3, 6)]), 0)
    (done,) = network.run_until(NEVER)
    assert done.host_end[6] == 1_000_000 + math.ceil(3 * 1_000_003 * 20)
    assert network.solves == 1
