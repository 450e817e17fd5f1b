"""The contract of role ``network`` as code: what any level must hold, ours or yours.

``check_network_model(MyLevel)`` raises AssertionError with the law that is broken. A level says with two flags what it does
not claim: ``contends=False`` if transfers that share a link do not slow each other, ``timed=False`` if transfers take no time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from distsim.network.model import NEVER, Finished, NetworkModel, Transfers
from distsim.network.rounding import serialisation
from distsim.network.transfers import single
from distsim.topology.graph import Paths, Topology

Factory = Callable[[Topology], NetworkModel]
Seen = list[tuple[int, int, tuple[tuple[int, int], ...]]]


def check_network_model(factory: Factory, *, contends: bool = True, timed: bool = True) -> None:
    """Run every law against networks that ``factory`` makes.

    Args:
        factory: makes a fresh network over a topology; usually the class itself.
        contends: the level claims that a link moves no more than its bandwidth.
        timed: the level claims that transfers take time and use links.

    Raises:
        AssertionError: names the broken law and the figures.
    """
    for law in (
        _reports_once, _slices_agree, _disjoint_groups_are_strangers, _hosts_are_symmetric, _forms_agree, _local_is_free,
    ):  # fmt: skip
        law(factory)
    if timed:
        for law in (_bytes_are_counted_once, _idle_hop_is_exact, _grows_with_size_and_slowness):
            law(factory)
    if contends:
        _never_beats_the_bottleneck(factory)


def star(hosts: int, bandwidth: float = 50e9, latency: int = 500_000) -> Topology:
    """``hosts`` hosts around one switch: host h sends on link 2h and receives on link 2h + 1."""

    def router(src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        crosses = src != dst
        ids = np.stack([2 * src, 2 * dst + 1], axis=1)[crosses].ravel().astype(np.int32)
        return np.concatenate([[0], np.cumsum(2 * crosses)]).astype(np.int64), ids

    sends, up = np.arange(hosts), np.full(hosts, hosts)
    return _topology("star", hosts, hosts + 1, np.stack([sends, up], 1).ravel(), np.stack([up, sends], 1).ravel(), bandwidth,
                     latency, router)  # fmt: skip


def pair(bandwidth: float = 50e9, latency: int = 500_000) -> Topology:
    """Two hosts and a cable: link 0 from host 0 to host 1, link 1 back."""

    def router(src: NDArray[np.int32], dst: NDArray[np.int32]) -> Paths:
        crosses = src != dst
        return np.concatenate([[0], np.cumsum(crosses)]).astype(np.int64), src[crosses].astype(np.int32)

    return _topology("pair", 2, 2, np.array([0, 1]), np.array([1, 0]), bandwidth, latency, router)


def random_transfers(hosts: int, rows: int, seed: int) -> Transfers:
    """A DAG of ``rows`` transfers between random hosts, a few of them local or empty, with up to three dependencies each."""
    dice = random.Random(seed)
    deps = [sorted({dice.randrange(row) for _ in range(dice.randrange(4))}) if row else [] for row in range(rows)]
    return Transfers(
        src=np.array([dice.randrange(hosts) for _ in range(rows)], dtype=np.int32),
        dst=np.array([dice.randrange(hosts) for _ in range(rows)], dtype=np.int32),
        bytes=np.array([dice.choice([0, 1, 1000, 4096, 65_536, dice.randrange(100_000)]) for _ in range(rows)], dtype=np.int64),
        dep_ptr=np.cumsum([0, *map(len, deps)], dtype=np.int64),
        dep=np.array([before for some in deps for before in some], dtype=np.int32),
        delay=np.array([dice.choice([0, 0, 1, 10_000, 700_000]) for _ in range(rows)], dtype=np.int64),
    )


def drain(network: NetworkModel, slices: Iterator[int] | None = None) -> Seen:
    """Run a network dry, in one go or up to each limit that ``slices`` gives; every report as (group, at, host ends)."""
    seen: Seen = []
    while network.next_event() < NEVER:
        limit = NEVER if slices is None else next(slices)
        for done in network.run_until(limit):
            seen.append((done.group, done.at, tuple(sorted(done.host_end.items()))))
    return seen


@contextmanager
def kernels(form: str) -> Iterator[None]:
    """``python`` or ``compiled`` kernels for every network made and used inside."""
    before = os.environ.get("DISTSIM_KERNELS")
    os.environ["DISTSIM_KERNELS"] = form
    try:
        yield
    finally:
        if before is None:
            del os.environ["DISTSIM_KERNELS"]
        else:
            os.environ["DISTSIM_KERNELS"] = before


def _topology(
    name: str, hosts: int, nodes: int, src: NDArray[np.int64], dst: NDArray[np.int64], bandwidth: float, latency: int,
    router: Callable[[NDArray[np.int32], NDArray[np.int32]], Paths],
) -> Topology:  # fmt: skip
    links = len(src)
    return Topology(
        name=name, spec=name, hosts=hosts, node_names=tuple(f"node{node}" for node in range(nodes)),
        link_src=src.astype(np.int32), link_dst=dst.astype(np.int32), link_bandwidth=np.full(links, bandwidth),
        link_latency=np.full(links, latency, dtype=np.int64), link_domain=np.zeros(links, dtype=np.int16), domains=("link",),
        router=router,
    )  # fmt: skip


def _expect(holds: bool, law: str, **figures: object) -> None:
    if not holds:
        raise AssertionError(f"{law}: " + ", ".join(f"{name} = {value}" for name, value in figures.items()))


def _last(network: NetworkModel, transfers: Transfers, at: int = 0) -> Finished:
    group = network.start(transfers, at)
    done = [one for one in network.run_until(NEVER) if one.group == group]
    _expect(len(done) == 1, "a started group finishes", group=group, reports=done)
    return done[0]


def _reports_once(factory: Factory) -> None:
    network = factory(star(6))
    dags = [random_transfers(6, rows, seed=rows) for rows in (1, 7, 40, 0)]
    groups = [network.start(dag, at) for at, dag in enumerate(dags)]
    _expect(groups == [0, 1, 2, 3], "groups are numbered in the order of their starts", groups=groups)
    seen = drain(network)
    _expect(sorted(group for group, _, _ in seen) == groups, "every group is reported exactly once", seen=seen)
    _expect(seen == sorted(seen, key=lambda one: (one[1], one[0])), "reports come by time, then group", seen=seen)
    _expect(network.run_until(NEVER) == [] and network.next_event() == NEVER, "an idle network has nothing to report")
    for group, at, ends in seen:
        hosts = {*dags[group].src.tolist(), *dags[group].dst.tolist()}
        _expect({host for host, _ in ends} == hosts, "host_end names the group's hosts", group=group, hosts=hosts, ends=ends)
        _expect(max([end for _, end in ends], default=group) == at, "a group ends with its last delivery", at=at, ends=ends)


def _bytes_are_counted_once(factory: Factory) -> None:
    topology, dag = star(6), random_transfers(6, 60, seed=3)
    network = factory(topology)
    _last(network, dag)
    offsets, ids = topology.paths(dag.src, dag.dst)
    expected = np.zeros(topology.links, dtype=np.int64)
    np.add.at(expected, ids, np.repeat(dag.bytes, np.diff(offsets)))
    sent = network.usage().bytes
    _expect(np.array_equal(sent, expected), "every byte crosses each link of its route once", sent=sent, expected=expected)


def _never_beats_the_bottleneck(factory: Factory) -> None:
    topology = star(6)
    network = factory(topology)
    incast = Transfers(
        src=np.arange(1, 6, dtype=np.int32), dst=np.zeros(5, dtype=np.int32), bytes=np.full(5, 1 << 20, dtype=np.int64),
        dep_ptr=np.zeros(6, dtype=np.int64), dep=np.zeros(0, dtype=np.int32), delay=np.zeros(5, dtype=np.int64),
    )  # fmt: skip
    at = _last(network, incast).at
    bound = float((network.usage().bytes / topology.link_bandwidth).max() * 1e12)
    _expect(at >= bound, "no link moves more than its bandwidth", at=at, bound=bound)


def _idle_hop_is_exact(factory: Factory) -> None:
    for size in (0, 1, 1000, 1 << 20, (1 << 30) + 7):
        for bandwidth in (50e9, 3e9, 53_687_091_200.0):
            at = _last(factory(pair(bandwidth)), single(0, 1, size)).at
            expected = 500_000 + serialisation(size, bandwidth)
            _expect(at == expected, "an idle hop takes latency + bytes / bandwidth", size=size, at=at, expected=expected)


def _grows_with_size_and_slowness(factory: Factory) -> None:
    sizes = [_last(factory(star(3)), single(0, 2, size)).at for size in (0, 1, 1000, 10_000, 1 << 20)]
    _expect(sizes == sorted(sizes), "more bytes never take less time", ends=sizes)
    rates = [_last(factory(star(3, bandwidth=rate)), single(0, 2, 1 << 20)).at for rate in (100e9, 50e9, 12.5e9, 1e9)]
    _expect(rates == sorted(rates), "less bandwidth never takes less time", ends=rates)
    waits = [_last(factory(star(3, latency=wait)), single(0, 2, 1 << 20)).at for wait in (0, 1, 500_000)]
    _expect(waits == sorted(waits), "more latency never takes less time", ends=waits)


def _hosts_are_symmetric(factory: Factory) -> None:
    ends = {_last(factory(star(5)), single(src, dst, 123_456)).at for src in range(5) for dst in range(5) if src != dst}
    _expect(len(ends) == 1, "alike pairs of hosts take alike", ends=ends)
    ends = {_last(factory(star(5)), single(0, 1, 123_456), at).at - at for at in (0, 1, 10**15)}
    _expect(len(ends) == 1, "durations do not depend on the date", ends=ends)


def _slices_agree(factory: Factory) -> None:
    def fresh() -> NetworkModel:
        network = factory(star(6))
        for at in (0, 0, 1_000_000):
            network.start(random_transfers(6, 50, seed=at), at)
        return network

    whole = drain(fresh())
    for seed in range(3):
        dice, now = random.Random(seed), 0

        def slices(dice: random.Random = dice, now: int = now) -> Iterator[int]:
            while True:
                now += dice.choice([0, 1, 20_000, 1_000_000])
                yield now

        sliced = drain(fresh(), slices())
        _expect(sliced == whole, "running in slices changes nothing", sliced=sliced, whole=whole)


def _disjoint_groups_are_strangers(factory: Factory) -> None:
    def halves(only: bool) -> Seen:
        network = factory(star(8))
        network.start(random_transfers(4, 40, seed=1), 0)
        if not only:
            other = random_transfers(4, 40, seed=2)
            network.start(Transfers(other.src + 4, other.dst + 4, *other.columns()[2:]), 5)
        return [one for one in drain(network) if one[0] == 0]

    _expect(halves(only=True) == halves(only=False), "groups on different links do not meet", alone=halves(only=True))


def _forms_agree(factory: Factory) -> None:
    answers = []
    for form in ("python", "compiled"):
        with kernels(form):
            network = factory(star(6))
            for at in (0, 3):
                network.start(random_transfers(6, 60, seed=at), at)
            seen = drain(network)
            answers.append((seen, network.usage().bytes.tolist(), network.usage().busy.tolist()))
    _expect(answers[0] == answers[1], "compiled kernels answer as interpreted ones do", python=answers[0], compiled=answers[1])


def _local_is_free(factory: Factory) -> None:
    for delay in (0, 17):
        network = factory(star(3))
        done = _last(network, single(1, 1, 1 << 20, delay), 100)
        _expect(done.at == 100 + delay, "a transfer from a host to itself takes its delay only", at=done.at, delay=delay)
        used = network.usage().bytes
        _expect(not used.any(), "a transfer from a host to itself crosses no link", bytes=used)
