"""How bandwidth of a collective is counted: algbw over the whole buffer, busbw by what a link must carry at least.

Source: nccl-tests, doc/PERFORMANCE.md. Factors depend on the operation and the number of members only, so that busbw can be
held against a link's bandwidth whatever the group.
"""

from __future__ import annotations


def whole_buffer(operation: str, size: int, members: int) -> int:
    """Bytes of the buffer that algbw counts, from the input of one member: where members bring shards, all of them."""
    return size * members if operation in ("all_gather", "gather") else size


def bus_factor(operation: str, members: int) -> float:
    """busbw / algbw."""
    if operation == "all_reduce":
        return 2 * (members - 1) / members
    if operation in ("all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"):
        return (members - 1) / members
    return 1.0
