"""What NCCL decides for one collective: the seam between its tuning model, which makes plans, and schedules, made of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """One collective as NCCL would run it.

    Attributes:
        operation: as in ``collectives.schedule.OPERATIONS``.
        algorithm: ring, tree, nvls, nvls_tree, collnet_direct, collnet_chain, pat, or p2p (all_to_all, send and receive).
        protocol: ll, ll128 or simple.
        bytes: NCCL's nBytes: the whole buffer (all_gather: gathered output; reduce_scatter, all_to_all: full input).
        ranks, nodes: of the communicator; ranks are even over nodes, unless the algorithm is ring or p2p.
        channels: that carry data at this size.
        chunk: bytes of data that one pipeline step of one channel moves.
        slices: parts of a chunk that are passed on one by one.
        base_ps: paid once, before the first byte moves: launch, protocol set-up.
        intra_hop_ps, inter_hop_ps: latency of one step inside a node / between nodes, without the bytes.
        rate: bytes/s of one rank while bytes move: what it sends over ``time_ps`` less base and hops. It sends
            2(n-1)/n of the buffer in an all_reduce by ring or NVLS, (n-1)/n in all_gather, reduce_scatter and all_to_all,
            twice the buffer in a tree (up and down) and in CollNet, the buffer in broadcast, reduce and send_recv.
        inter_rate: the same of one *node* towards others, all its NICs together; 0.0 with one node. Never above what the
            NICs carry; a node of a ring sends what a rank does, one of a tree twice the buffer (of two nodes: once).
        time_ps: the closed form, on idle links.
    """

    operation: str
    algorithm: str
    protocol: str
    bytes: int
    ranks: int
    nodes: int
    channels: int
    chunk: int
    slices: int
    base_ps: int
    intra_hop_ps: int
    inter_hop_ps: int
    rate: float
    inter_rate: float
    time_ps: int

    @property
    def per_node(self) -> int:
        """Ranks of one node."""
        return self.ranks // self.nodes
