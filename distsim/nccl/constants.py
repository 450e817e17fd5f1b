"""NCCL's own numbers: latencies, bandwidths and sizes that its tuning model and its kernels use, by GPU generation.

Source: NVIDIA/nccl 2.30.7, ``src/graph/tuning.cc`` (latencies, bandwidths, tree correction), ``search.cc`` (link speeds),
``enqueue.cc`` and ``device/all_reduce.h`` (threads, chunks). Times are microseconds and rates GB/s of 1e9 bytes, as there.
Tuples over protocols are (LL, LL128, Simple); tuples over nodes are (one, two, three or more).
"""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOLS = ("ll", "ll128", "simple")
ALGORITHMS = ("ring", "tree", "nvls", "nvls_tree", "collnet_direct", "collnet_chain", "pat", "p2p")
LL, LL128, SIMPLE = 0, 1, 2

Three = tuple[float, float, float]

#: paid once: launch and protocol set-up (tuning.cc baseLatencies)
BASE_US: dict[str, Three] = {
    "ring": (6.6, 14.0, 8.4),
    "tree": (6.8, 14.0, 8.4),
    "nvls": (0.0, 0.0, 0.0),
    "nvls_tree": (0.0, 0.0, 0.0),
    "collnet_direct": (0.0, 0.0, 0.0),
    "collnet_chain": (0.0, 0.0, 0.0),
    "pat": (8.0, 8.0, 8.0),
}
#: one hop, by the hardware that it crosses (tuning.cc hwLatencies)
HOP_US: dict[str, dict[str, Three]] = {
    "nvlink": {
        "ring": (0.6, 1.9, 3.4), "tree": (0.6, 1.25, 4.0), "nvls": (25.0, 25.0, 25.0), "nvls_tree": (25.0, 25.0, 25.0),
        "collnet_direct": (3.7, 3.7, 3.7), "collnet_chain": (2.8, 2.8, 2.8), "pat": (4.0, 4.0, 4.0),
    },
    "pci": {
        "ring": (1.0, 2.5, 5.7), "tree": (1.0, 1.9, 4.0), "nvls": (0.0, 0.0, 0.0), "nvls_tree": (0.0, 0.0, 0.0),
        "collnet_direct": (3.7, 3.7, 3.7), "collnet_chain": (2.8, 2.8, 2.8), "pat": (4.0, 4.0, 4.0),
    },
    "net": {
        "ring": (2.7, 4.0, 14.0), "tree": (5.0, 8.5, 14.0), "nvls": (18.0, 18.0, 18.0), "nvls_tree": (20.9, 20.9, 20.9),
        "collnet_direct": (31.0, 31.0, 31.0), "collnet_chain": (30.0, 30.0, 30.0), "pat": (14.0, 14.0, 14.0),
    },
}  # fmt: skip
#: CPU time to post one network operation; three times as much for Simple
POST_US = {"intel": 1.0, "amd": 2.0, "arm": 1.0}
#: CollNetDirect: serialisation of the copies of each further GPU of the node
COLLNET_COPY_US = 0.4
#: PAT: parts of the network latency that its steps overlap; cost of each peer
PAT_OVERLAP, PAT_PEER_US = 3.5, 2.8
#: ring all-reduce, Simple, several nodes, at least this many bytes per rank and channel: latency grows (the plateau effect)
PLATEAU_BYTES, PLATEAU, PLATEAU_BEFORE_AMPERE = 64, 1.4, 1.9

#: share of a ring's rate that LL128 and trees reach; LL of a tree; LL128 of a tree by nodes; a plain tree pattern; PAT
LL128_SHARE, TREE_SHARE, TREE_LL_PART, TREE_LL128, PLAIN_TREE, PAT_SHARE = 0.92, 0.92, 1 / 3.8, (7 / 9, 0.9375), 0.85, 0.75

#: what a tree reaches of its algorithm bandwidth, by floor(log2(bytes / 64)), per protocol (treeCorrectionFactor)
TREE_CORRECTION: tuple[tuple[float, ...], ...] = (
    (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 1, 1, 1),
    (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9, 0.9),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Generation:
    """What differs between GPU generations.

    Attributes:
        ll_max: most that LL reaches on the bus, by nodes (one node: the GPU's row).
        ll128_ring, ll128_tree, tree, nvls_tree: most of one channel on the bus, by nodes; 0 = not there.
        nvls_share: efficiency of NVLink SHARP, 0 = no such switch.
        speeds: GB/s per channel that the topology search tries inside a node, fastest first.
        net_speeds: the same between nodes.
        nvls_channels: CTAs of an NVLS kernel.
        latency, transfer: the two scalars that turn NCCL's constants into times (see ``model``). Fitted by
            ``scripts/fit_nccl_defaults.py`` on the single-node NVSwitch rows of the reference, the systems of a generation
            together.
    """

    ll_max: Three
    ll128_ring: Three
    ll128_tree: Three
    tree: Three
    nvls_tree: Three
    nvls_share: float
    speeds: tuple[float, ...]
    net_speeds: tuple[float, ...]
    nvls_channels: int
    latency: float
    transfer: float


GENERATIONS = {
    # no reference rows: the scalars of the generation that follows
    "volta": Generation(
        (39.0, 39.0, 20.4), (20.0, 20.0, 20.0), (20.0, 20.0, 20.0), (26.5, 18.5, 10.0), (26.5, 18.5, 10.0), 0.0,
        (40.0, 30.0, 20.0, 18.0, 15.0, 12.0, 10.0, 9.0, 7.0, 6.0, 5.0, 4.0, 3.0),
        (48.0, 30.0, 28.0, 24.0, 20.0, 18.0, 15.0, 12.0), 0, 1.164, 0.998,
    ),
    "ampere": Generation(
        (87.7, 22.5, 19.0), (20.0, 20.0, 20.0), (20.0, 20.0, 20.0), (24.0, 23.6, 17.8), (24.0, 23.6, 17.8), 0.0,
        (40.0, 30.0, 20.0, 18.0, 15.0, 12.0, 10.0, 9.0, 7.0, 6.0, 5.0, 4.0, 3.0),
        (48.0, 30.0, 28.0, 24.0, 20.0, 18.0, 15.0, 12.0), 0, 1.164, 0.998,
    ),
    "hopper": Generation(
        (141.0, 45.0, 35.0), (36.7, 36.7, 36.7), (36.7, 36.7, 29.0), (38.7, 41.4, 36.0), (0.0, 57.7, 45.5), 0.85,
        (60.0, 50.0, 40.0, 30.0, 24.0, 20.0, 15.0, 12.0, 11.0, 6.0, 3.0),
        (48.0, 45.0, 42.0, 40.0, 30.0, 24.0, 22.0, 20.0, 17.5, 15.0, 12.0, 6.0, 3.0), 16, 0.777, 0.912,
    ),
    "blackwell": Generation(
        (282.0, 90.0, 70.0), (40.0, 40.0, 40.0), (55.6, 31.67, 20.0), (70.0, 42.8, 24.0), (0.0, 96.0, 80.0), 0.74,
        (90.0, 80.0, 70.0, 60.0, 50.0, 45.0, 40.0, 30.0, 24.0, 20.0, 19.0, 18.0),
        (96.0, 86.0, 80.0, 48.0, 45.1, 42.0, 40.0, 30.0, 24.0, 22.0, 20.0, 17.5, 15.0, 12.0, 6.0, 3.0), 24, 1.255, 0.986,
    ),
}  # fmt: skip
#: LL on several nodes is bounded by the CPU: the rows of two generations stand for the two makers
LL_MAX_OF_CPU = {"intel": "volta", "amd": "ampere", "arm": "ampere"}

#: data bytes of one pipeline step of one channel and connection: 4 MiB / 8 Simple, half of the 64 KiB of LL, 120/128 of LL128
STEP_BYTES = (32_768, 576_000, 524_288)
#: steps and slices of one ring chunk of Simple in all_reduce, all_gather, reduce_scatter; one of each everywhere else
RING_CHUNK_STEPS, RING_SLICES = 4, 2
NVLS_CHUNK = 128 << 10
#: NVLSTree: its larger chunk, on at most four nodes (NCCL_NVLSTREE_MAX_CHUNKSIZE)
NVLS_TREE_CHUNK = 256 << 10
P2P_CHUNK, P2P_NET_CHUNK = 512 << 10, 128 << 10
#: point-to-point takes LL up to this many bytes per channel and peer
P2P_LL_BYTES = 16 << 10
#: peers of a rank that one grouped kernel serves at once
P2P_PEERS = 8

#: threads of a block, and bytes of one thread below which a channel (then half of the threads) is given up
THREADS = {"ll": 512, "ll128": 640, "simple": 512, "nvls": 640, "collnet": 640}
THREAD_BYTES = {"ll": 8, "ll128": 8, "simple": 64, "collnet": 512}
SLOW_BUS = 12.0  #: GB/s of a ring up to which Simple takes half of the threads
MAX_CHANNELS = 64
