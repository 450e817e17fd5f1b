"""NCCL's all_to_all: point-to-point transfers, up to eight peers at a time; between nodes by PXN.

A rank begins with its nearest peers: those of its node, then node after node. The next eight transfers leave when the last
eight have been delivered.

PXN (NCCL 2.12): what goes to another node first moves over NVLink to the GPU of its own node that sits on the destination's
rail; there the parts of all GPUs of the node become one message through that GPU's NIC. So no traffic changes rails in the
fabric, and there are ``rails`` times fewer messages. Without PXN every pair of ranks has a message of its own.
"""

from __future__ import annotations

import numpy as np

from distsim.collectives.blocks import Layout
from distsim.collectives.schedule import Collective, Schedule
from distsim.nccl.plan import Plan
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.pace import Paced
from distsim.nccl.schedules.ring import ROWS
from distsim.nccl.schedules.wires import Wire, Wires

PEERS = 8  #: in flight (NCCL_MAX_DEV_WORK_P2P_PER_BATCH)
_LAGS = (0, 1, 2, 3, 4, 6, 8, 12, 16)  # batches in flight beyond the first
_CUTS = (1, 2, 4, 8, 16, 32, 64, 128)  # parts of a message that are sent one by one


class _Rows:
    """Rows with their blocks, as they are found."""

    def __init__(self, collective: Collective, cut: int) -> None:
        self.cut, self.size = cut, collective.size
        self._collective = collective
        # NOTE: lists, as rows are found one by one and numpy's sums of eight numbers are slow
        self._segments: list[list[int]] = Layout(collective, cut).sizes().tolist()
        self._src: list[int] = []
        self._dst: list[int] = []
        self._bytes: list[int] = []
        self._dep: list[list[int]] = []
        self._blocks: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []  # (piece, destinations, sources)
        self._hop: list[float] = []

    def join(self, member: int, dep: list[int], delay: float = 0.0) -> int:
        """A join; returns its row."""
        return self._add(member, member, 0, dep, (0, (), ()), delay)

    def batch(
        self, src: int, to: list[tuple[int, tuple[int, ...]]], sources: tuple[int, ...], dep: list[int], hop: float
    ) -> list[tuple[int, int]]:
        """Messages that set out at once: (receiver, destinations) each. Returns (receiver, row) of all their parts."""
        found = []
        for piece in range(self.cut):
            found += self.part(piece, src, to, sources, dep, hop)
        return found

    def part(
        self, piece: int, src: int, to: list[tuple[int, tuple[int, ...]]], sources: tuple[int, ...], dep: list[int], hop: float
    ) -> list[tuple[int, int]]:
        """One part of such messages."""
        segment = self._segments[piece]
        found = []
        for dst, destinations in to:
            size = sum(segment[member] for member in destinations) * len(sources)
            found.append((dst, self._add(src, dst, size, dep, (piece, destinations, sources), hop)))
        return found

    def _add(
        self, src: int, dst: int, size: int, dep: list[int], blocks: tuple[int, tuple[int, ...], tuple[int, ...]], hop: float
    ) -> int:
        self._src.append(src)
        self._dst.append(dst)
        self._bytes.append(size)
        self._dep.append(dep)
        self._blocks.append(blocks)
        self._hop.append(hop)
        return len(self._src) - 1

    def paced(self) -> Paced:
        """The schedule."""
        n = self.size

        def payload(row: int) -> list[int]:
            piece, destinations, sources = self._blocks[row]
            return [(piece * n + dst) * n + src for dst in destinations for src in sources]

        ptr = np.zeros(len(self._src) + 1, np.int64)
        np.cumsum([len(dep) for dep in self._dep], out=ptr[1:])
        schedule = Schedule(
            n, np.array(self._src, np.int32), np.array(self._dst, np.int32), np.array(self._bytes, np.int64), ptr,
            np.array([row for dep in self._dep for row in dep], np.int32), np.zeros(len(self._src), np.bool_), payload,
            self.cut,
        )  # fmt: skip
        hop = np.round(np.maximum(0.0, np.array(self._hop))).astype(np.int64)
        return Paced(schedule, hop)


def exchange_schedule(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires, *, pxn: bool) -> Paced:
    """all_to_all of any group; PXN where it is asked for and the group has rails."""
    if pxn and grouping.even and grouping.rails > 1 and len(grouping.nodes) > 1:
        return _by_rail(plan, collective, grouping, wires)
    return _pairwise(plan, collective, grouping, wires)


def _pairwise(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires) -> Paced:
    """A message for every pair. Peers of a rank's own node and all others are two queues, as they use different links.

    Batches of eight take turns; where one takes longer than its turn, the next waits for one that is ``lag`` before it.
    """
    n = collective.size
    part = plan.bytes / n
    total = float(plan.time_ps - plan.base_ps)
    near, far = max(len(node) for node in grouping.nodes) - 1, n - min(len(node) for node in grouping.nodes)
    inside = max(float(plan.intra_hop_ps), wires.intra.ps(part, near * part)) if far else total

    def turns(peers: int, wire: Wire, whole: float, cut: int, lag: int) -> tuple[float, float]:
        """ps between two batches; by how much of all the time the links miss it."""
        batch = min(PEERS, peers)
        turn = whole / (peers / batch + lag)
        late = max(batch * part * wire.per_byte - turn, (wire.ps(part / cut, batch * part) - (1 + lag) * turn) / (1 + lag))
        return turn, max(0.0, late * peers / batch / whole)

    queues = [(peers, wire, whole) for peers, wire, whole in ((near, wires.intra, inside), (far, wires.across, total)) if peers]
    tried = [(cut, lag) for cut in _CUTS for lag in _LAGS if cut == 1 or cut * n * n <= ROWS]
    cut, lag = min(tried, key=lambda one: int(1000 * max(turns(*queue, *one)[1] for queue in queues)))
    rows = _Rows(collective, cut)
    for number, node in enumerate(grouping.nodes):
        for place, member in enumerate(node):
            start = rows.join(member, [], plan.base_ps)
            own = [node[(place + step) % len(node)] for step in range(1, len(node))]
            others = []
            for step in range(1, len(grouping.nodes)):
                there = grouping.nodes[(number + step) % len(grouping.nodes)]
                others += [there[(place + turn) % len(there)] for turn in range(len(there))]
            for peers, whole in ((own, inside), (others, total)):
                if not peers:
                    continue
                turn = whole / (len(peers) / min(PEERS, len(peers)) + lag)
                gates: list[list[int]] = [[start]]
                gates += [[rows.join(member, [], plan.base_ps + late * turn)] for late in range(1, lag + 1)]
                for number_of, first in enumerate(range(0, len(peers), PEERS)):
                    batch = peers[first : first + PEERS]
                    sent = rows.batch(member, [(peer, (peer,)) for peer in batch], (member,), gates[number_of],
                                      turn * (len(batch) / min(PEERS, len(peers)) + lag))  # fmt: skip
                    if first + PEERS * (1 + lag) < len(peers):
                        gates.append([rows.join(member, [row for _, row in sent])])
    return rows.paced()


def _by_rail(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires) -> Paced:
    """PXN: gathered by rail inside the node for eight other nodes at a time, then one message to each of them.

    What is gathered is cut into parts, so that the NICs need not wait for all of it. The next eight leave as the last eight are
    through the NIC, whatever they still take on their way, and wait for those before them.
    """
    n, nodes, rails = collective.size, grouping.nodes, grouping.rails
    part = plan.bytes / n
    total = float(plan.time_ps - plan.base_ps)
    others = len(nodes) - 1
    window = min(PEERS, others)
    cut, inside, share, extra = 1, 0.0, 0.0, 0.0
    for cut in _CUTS:
        inside = wires.intra.ps(window * part / cut, (rails - 1) * window * part / cut)
        size = rails * part / cut
        extra = wires.inter.ps(size) - wires.inter.per_byte * size  # latency, and what is stored on the way
        share = max(0.0, total - inside - extra) / others
        if share >= wires.inter.per_byte * rails * part * 0.99 or 2 * cut * n * (others + rails) > ROWS:
            break
    rows = _Rows(collective, cut)
    for number, node in enumerate(nodes):
        gates = {member: rows.join(member, [], plan.base_ps) for member in node}
        on_wire, under_way = dict(gates), dict[int, list[int]]()
        for first in range(0, others, window):
            there = [nodes[(number + step) % len(nodes)] for step in range(first + 1, min(first + window, others) + 1)]
            sent: dict[int, list[int]] = {member: [] for member in node}
            opened = dict(on_wire) if first else {}
            for piece in range(cut):
                arrived: dict[int, list[int]] = {member: [gates[member]] for member in node}
                for place, member in enumerate(node):
                    proxies = ((place + turn) % rails for turn in range(1, rails))
                    to = [(node[rail], tuple(peers[rail] for peers in there)) for rail in proxies]
                    for head, row in rows.part(piece, member, to, (member,), [gates[member]], inside):
                        arrived[head].append(row)
                for rail, head in enumerate(node):
                    gates[head] = rows.join(head, arrived[head])
                    to = [(peers[rail], (peers[rail],)) for peers in there]
                    wait = [gates[head], on_wire[head]]
                    opened.setdefault(head, gates[head])
                    late = 0.0 if first else piece * inside  # the parts of the first eight are gathered one after the other
                    leave = rows.part(piece, head, to, node, wait, share * len(there) + extra - late)
                    sent[head] += [row for _, row in leave]
            if first + window < others:
                turn = {head: rows.join(head, [opened[head]], share * len(there)) for head in node}
                on_wire = {head: rows.join(head, [turn[head], *under_way.get(head, ())]) for head in node}
                under_way = sent
        for place, member in enumerate(node):
            peers = [node[(place + turn) % rails] for turn in range(1, rails)]
            rows.batch(member, [(peer, (peer,)) for peer in peers], (member,), [gates[member]], inside)
    return rows.paced()
