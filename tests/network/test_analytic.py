"""Level ``analytic``: figures worked by hand, its bounds against ``chunk``, its memory of answers. Level ``ideal``."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import dag

from distsim.errors import ConfigError
from distsim.network.analytic import Analytic
from distsim.network.check import drain, kernels, pair, random_transfers, star
from distsim.network.chunk import Chunk
from distsim.network.model import NEVER
from distsim.network.null import NullNetwork
from distsim.network.transfers import single

MIB = 1 << 20
SER = MIB * 20
LAT = 500_000


def only(network, transfers, at=0):
    network.start(transfers, at)
    (done,) = network.run_until(NEVER)
    return done


def test_bytes_are_paid_once_and_latency_on_every_hop(form):
    assert only(Analytic(star(3)), single(0, 1, MIB)).at == SER + 2 * LAT == 21_971_520
    assert only(Analytic(pair()), single(0, 1, MIB)).at == only(Chunk(pair()), single(0, 1, MIB)).at


def test_nothing_contends(form):
    incast = dag([(host, 0, MIB) for host in range(1, 6)])
    assert only(Analytic(star(6)), incast).at == SER + 2 * LAT


def test_chain_with_delays_and_host_ends(form):
    network = Analytic(star(4))
    done = only(network, dag([(0, 1, MIB, [], 7), (1, 2, 0, [0]), (3, 3, 5, [0], 11)]), at=100)
    first = 100 + SER + 2 * LAT + 7
    assert done.host_end == {0: first, 1: first + 2 * LAT, 2: first + 2 * LAT, 3: first + 11}
    assert done.at == first + 2 * LAT


def test_the_finish_is_known_at_the_start(form):
    network = Analytic(pair())
    assert network.start(single(0, 1, 1000), 5) == 0
    assert network.next_event() == 5 + 20_000 + LAT
    assert network.run_until(5 + 20_000 + LAT - 1) == []
    assert len(network.run_until(5 + 20_000 + LAT)) == 1


def test_an_object_given_again_is_remembered_and_counted(form):
    network, transfers = Analytic(star(6)), random_transfers(6, 30, seed=4)
    one = only(network, transfers)
    used = network.usage()
    two = only(network, transfers, at=one.at)
    assert two.host_end == {host: end + one.at for host, end in one.host_end.items()}
    assert (network.usage().bytes == 2 * used.bytes).all()
    assert (network.usage().busy == 2 * used.busy).all()
    assert network._sweeps == 1


def test_refusals(form):
    network = Analytic(star(3, bandwidth=1.0))
    with pytest.raises(ConfigError, match=r"transfer 1.*does not come before"):
        network.start(dag([(0, 1, 1), (0, 1, 1, [1])]), 0)
    with pytest.raises(ConfigError, match="src is 9"):
        network.start(single(9, 1, 1), 0)
    with pytest.raises(ConfigError, match="beyond 2"):
        network.start(dag([(0, 1, 1 << 52), *((0, 1, 1 << 52, [row]) for row in range(5))]), 0)
    only(network, single(0, 1, 1), at=10)
    with pytest.raises(ConfigError, match="cannot start at 3"):
        network.start(single(0, 1, 1), 3)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(0, 60), bandwidth=st.sampled_from([50e9, 3e9]))
def test_chunk_is_never_faster_and_uses_the_links_alike(seed, rows, bandwidth):
    transfers = random_transfers(6, rows, seed)
    answers = {}
    for form in ("python", "compiled"):
        with kernels(form):
            network = Analytic(star(6, bandwidth))
            answers[form] = only(network, transfers), network.usage()
    done, usage = answers["python"]
    assert (done.at, done.host_end) == (answers["compiled"][0].at, answers["compiled"][0].host_end)
    slow = Chunk(star(6, bandwidth))
    assert only(slow, transfers).at >= done.at
    for other in (slow.usage(), answers["compiled"][1]):
        assert usage.bytes.tolist() == other.bytes.tolist()
        assert usage.busy.tolist() == other.busy.tolist()


def test_ideal_leaves_only_delays(form):
    network = NullNetwork(star(4))
    assert only(network, dag([(0, 1, MIB, [], 7), (1, 2, MIB, [0], 5), (2, 2, 1, [0], 1)]), at=3).at == 15
    network.start(single(0, 1, MIB), 15)
    assert drain(network) == [(1, 15, ((0, 15), (1, 15)))]
    assert not network.usage().busy.any()
