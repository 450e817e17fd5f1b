"""Write the traces that the speed bars are measured on: ``python scripts/make_bench_traces.py OUTDIR``.

* ``chain.<0-3>.et``: 400,000 nodes a rank, node k depends on k - 1;
* ``fan.<0-3>.et``: 10,000 nodes a rank, all of which depend on node 0 only;
* ``tiny.<0-3>.et``: 2 nodes a rank, for the cost of starting.

Every tenth node is an all-reduce of 1 MiB over all ranks, the others compute 1e9 operations on 1 MiB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

RANKS = 4


def varint(value: int) -> bytes:
    """Base-128 of a non-negative number."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    """A varint field, or one with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def attribute(name: str, number: int, value: int) -> bytes:
    """An attr field of a node."""
    return field(10, field(1, name.encode()) + field(number, value))


def rank_file(nodes: int, chain: bool) -> bytes:
    """One rank's file."""
    cpu = attribute("is_cpu_op", 27, 0)
    compute = (field(2, b"compute") + field(3, 4), cpu + attribute("num_ops", 9, 10**9) + attribute("tensor_size", 13, 1 << 20))
    reduce = (field(2, b"all_reduce") + field(3, 7), cpu + attribute("comm_type", 9, 0) + attribute("comm_size", 9, 1 << 20))
    head = field(1, b"0.0.4")
    parts = [varint(len(head)) + head]
    for k in range(nodes):
        before, after = reduce if k % 10 == 9 else compute
        body = (field(1, k) if k else b"") + before
        if k:
            body += field(5, varint(k - 1 if chain else 0))
        body += after
        parts.append(varint(len(body)) + body)
    return b"".join(parts)


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outdir", type=Path)
    folder: Path = parser.parse_args().outdir
    folder.mkdir(parents=True, exist_ok=True)
    for name, nodes, chain in (("chain", 400_000, True), ("fan", 10_000, False), ("tiny", 2, True)):
        data = rank_file(nodes, chain)
        for rank in range(RANKS):
            (folder / f"{name}.{rank}.et").write_bytes(data)
        print(f"{folder / name}: {RANKS} ranks x {nodes:,} nodes, {RANKS * len(data) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
