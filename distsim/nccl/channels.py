"""How much of the machine a collective of a size takes: channels, threads, chunks, slices.

Source: NVIDIA/nccl 2.30.7 ``src/enqueue.cc`` (``getChannnelThreadInfo``, ``calcCollChunking``). What NCCL steps by whole
channels is also given as a fraction, so that times do not jump where one channel more is taken.
"""

from __future__ import annotations

import math

from distsim.nccl import constants as c
from distsim.nccl.system import System


def bytes_of_channel(algorithm: str, protocol: str, ranks: int) -> int:
    """Bytes that one channel must have before another is taken: threads x bytes per thread (x ranks for a ring's LL)."""
    if algorithm.startswith("collnet"):
        return c.THREADS["collnet"] * c.THREAD_BYTES["collnet"]
    each = c.THREADS[protocol] * c.THREAD_BYTES[protocol]
    return each * ranks if protocol == "ll" and algorithm == "ring" else each


def fractional_channels(algorithm: str, protocol: str, size: float, system: System) -> float:
    """Channels that carry data, without rounding: size over the bytes of a channel, between one and all.

    >>> from distsim.nccl.system import system_of
    >>> fractional_channels("ring", "ll", 4096 * 8 * 2.5, system_of("h100", 8))
    2.5
    """
    if algorithm.startswith("nvls"):
        return float(system.generation.nvls_channels)
    return min(float(system.channels), max(1.0, size / bytes_of_channel(algorithm, protocol, system.ranks)))


def channels(algorithm: str, protocol: str, size: int, system: System) -> int:
    """Channels that carry data, as NCCL counts them."""
    return math.ceil(fractional_channels(algorithm, protocol, size, system))


def threads(algorithm: str, protocol: str, size: int, system: System) -> int:
    """Threads of one channel: halved, once one channel is left, while there are too few bytes for them."""
    if algorithm.startswith(("nvls", "collnet")):
        return c.THREADS["nvls"]
    most = c.THREADS[protocol]
    if protocol == "simple" and system.rings * system.ring_rate <= c.SLOW_BUS:
        most //= 2
    left = most
    factor = system.ranks if protocol == "ll" and algorithm == "ring" else 1
    while left % 128 == 0 and size < left * c.THREAD_BYTES[protocol] * factor:
        left //= 2
    return left


def slices(operation: str, algorithm: str, protocol: str) -> int:
    """Parts of a chunk that are passed on one by one."""
    return c.RING_SLICES if _long_chunks(operation, algorithm, protocol) else 1


def _long_chunks(operation: str, algorithm: str, protocol: str) -> bool:
    return algorithm == "ring" and protocol == "simple" and operation in ("all_reduce", "all_gather", "reduce_scatter")


def chunk_bytes(operation: str, algorithm: str, protocol: str, size: int, system: System) -> int:
    """Bytes of data that one pipeline step of one channel moves.

    A ring's chunk shrinks to its part of the last loop (aligned to 16 bytes), the others by the thresholds of the source.
    """
    used = channels(algorithm, protocol, size, system)
    at = c.PROTOCOLS.index(protocol)
    if algorithm == "nvls":
        return _shrunk(c.NVLS_CHUNK, size / (used * system.heads), (64, 8, 2))
    if algorithm == "nvls_tree":
        return _shrunk(c.NVLS_TREE_CHUNK if system.nodes <= 4 else c.NVLS_CHUNK, size / (used * system.heads), (32, 16, 4, 1))
    if algorithm == "p2p":
        return c.P2P_CHUNK if system.nodes == 1 else c.P2P_NET_CHUNK
    chunk = c.STEP_BYTES[at] * (c.RING_CHUNK_STEPS if _long_chunks(operation, algorithm, protocol) else 1)
    if algorithm == "ring":
        parts = used * (system.ranks if operation in ("all_reduce", "all_gather", "reduce_scatter") else 1)
        return max(16, min(chunk, -(-size // (parts * 16)) * 16))
    if algorithm == "pat":
        while chunk * used * (32 if operation == "all_gather" else 16) > size and chunk > 64 << 10:
            chunk //= 2
        return chunk
    if algorithm == "tree" and protocol == "ll128":
        depth = 1 + math.log2(system.nodes) + 0.1 * system.per_node
        for factor, least in ((64, 128 << 10), (16, 32 << 10)):
            while size / (used * chunk) < factor * depth / system.per_node and chunk > least:
                chunk //= 2
    return max(16, min(chunk, -(-size // (used * 16)) * 16))


def _shrunk(chunk: int, each: float, factors: tuple[int, ...]) -> int:
    """The chunk of NVLS: halved once for every factor that a head and channel has fewer chunks than."""
    for factor in factors:
        if each < factor * chunk and chunk > 16 << 10:
            chunk //= 2
    return chunk


def ramp_bytes(algorithm: str, protocol: str, system: System) -> int:
    """Bytes in the pipeline: what ``model`` takes for filling and draining it.

    The loop over channels (and heads) of trees and NVLS; a ring's loop nearly always holds the whole buffer, so that its
    largest chunk counts. A ring's LL passes lines on as they come: there is nothing to fill.
    """
    if algorithm.startswith("nvls"):
        return system.generation.nvls_channels * system.heads * c.NVLS_CHUNK
    step = c.STEP_BYTES[c.PROTOCOLS.index(protocol)]
    if algorithm == "tree":
        return system.channels * step
    if protocol == "ll":
        return 0
    return step * (c.RING_CHUNK_STEPS if protocol == "simple" else 1)
