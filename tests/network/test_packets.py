"""Packets on the level fluid: overhead per packet, one packet's time per hop, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from distsim.errors import ConfigError
from distsim.network.check import drain, pair, random_transfers, star
from distsim.network.model import NEVER
from distsim.network.packets import HEADER, Packets
from distsim.network.spec import build_network
from distsim.network.transfers import single
from distsim.topology.routed import routed
from distsim.topology.spec import build


def _time(network, transfers):
    network.start(transfers, 0)
    (done,) = network.run_until(NEVER)
    return done.at


def test_a_message_grows_by_three_small_packets_for_each_of_its_own():
    """1 GB in packets of 4096 B at 50 GB/s over one hop: 244,141 packets, 192 B more each."""
    packets = -(-(10**9) // 4096)
    assert _time(build_network("fluid:mtu=4096", pair(50e9)), single(0, 1, 10**9)) == 500_000 + (10**9 + 192 * packets) * 20


def test_every_hop_but_the_slowest_stores_one_packet():
    """Two hops of a star: one packet of 4096 + 64 B at 50 GB/s is 83.2 ns."""
    one = _time(build_network("fluid:mtu=4096", star(3)), single(0, 2, 4096))
    assert one == 2 * 500_000 + (4096 + 3 * HEADER) * 20 + (4096 + HEADER) * 20


def test_nothing_is_added_where_nothing_moves():
    topology = star(3)
    packets = Packets(topology, 1500)
    empty, local = packets(single(0, 2, 0)), packets(single(1, 1, 5000, 7))
    assert (empty.bytes[0], empty.delay[0]) == (0, 0)
    assert local.delay[0] == 7
    assert packets(single_ := single(0, 1, 10)) is packets(single_)  # remembered


def test_parts_of_a_sprayed_message_each_know_their_route():
    topology = routed("spray", build("fat_tree:k=4"))
    plain = _time(build_network("fluid", topology), single(0, 15, 1 << 24))
    packed = _time(build_network("fluid:mtu=4096", topology), single(0, 15, 1 << 24))
    assert packed == pytest.approx(plain * (1 + 3 * HEADER / 4096), rel=1e-3)


def test_law_3_packets_never_make_anything_faster():
    for seed in range(5):
        transfers = random_transfers(6, 40, seed=seed)
        ends = []
        for spec in ("fluid", "fluid:mtu=9000", "fluid:mtu=1500"):
            network = build_network(spec, star(6))
            network.start(transfers, 0)
            ends.append(drain(network)[-1][1])
        assert ends[0] < min(ends[1:])


def test_a_packet_has_to_hold_something():
    with pytest.raises(ConfigError, match="mtu"):
        build_network("fluid:mtu=0", star(3))


def test_dtype_of_columns_stays():
    made = Packets(star(4), 4096)(random_transfers(4, 20, seed=1))
    assert made.bytes.dtype == made.delay.dtype == np.int64
