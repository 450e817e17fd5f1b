"""Steps, transfers and bytes against the formulas of the literature; orders and windows; time and memory to build."""

import time

import numpy as np
import pytest

from distsim.collectives.blocks import Layout, balanced
from distsim.collectives.check import check
from distsim.collectives.double_binary_tree import two_trees
from distsim.collectives.schedule import Collective, schedule


def proof_of(name, operation, size, amount=1000, **more):
    collective = Collective(operation, size, amount, **more)
    answer = schedule(name, collective)
    return answer, check(answer, collective)


def moved(answer):
    return int((answer.src != answer.dst).sum())


@pytest.mark.parametrize("n", [2, 3, 5, 8, 13])
def test_ring(n):
    amount = 40 * n
    for operation, steps, each in (
        ("all_reduce", 2 * (n - 1), 40),
        ("reduce_scatter", n - 1, 40),
        ("all_gather", n - 1, amount),
    ):
        answer, proof = proof_of("ring", operation, n, amount)
        assert (proof.steps, len(answer)) == (steps, steps * n)
        assert proof.sent == proof.received == [steps * each] * n
        assert answer.src.reshape(steps, n).tolist() == [list(range(n))] * steps  # step-major
    _, proof = proof_of("ring", "all_to_all", n, amount)
    assert (proof.steps, proof.sent) == (n - 1, [40 * n * (n - 1) // 2] * n)
    for operation in ("broadcast", "reduce"):
        answer, proof = proof_of("ring", operation, n, amount, root=1, chunks=5)
        assert proof.steps == (n - 1) + 4
        assert proof.bytes == (n - 1) * amount
    assert proof_of("ring", "barrier", n)[1].steps == n - 1


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_halving_doubling_is_as_thrifty_as_a_ring_in_logarithmic_steps(n):
    bits = n.bit_length() - 1
    _, proof = proof_of("halving_doubling", "all_reduce", n, 10 * n)
    assert (proof.steps, proof.sent) == (2 * bits, [20 * (n - 1)] * n)
    answer, _ = proof_of("halving_doubling", "all_gather", n, 10)
    distances = np.abs(answer.src - answer.dst).reshape(bits, n)[:, 0]
    assert distances.tolist() == [n >> (k + 1) for k in range(bits)]
    assert answer.bytes.reshape(bits, n)[:, 0].tolist() == [10 << k for k in range(bits)]


@pytest.mark.parametrize("n", range(2, 18))
def test_recursive_doubling(n):
    bits, power = n.bit_length() - 1, not n & (n - 1)
    _, proof = proof_of("recursive_doubling", "all_reduce", n, 100)
    assert proof.steps == bits + (0 if power else 2)
    assert proof.bytes == 100 * ((1 << bits) * bits + 2 * (n - (1 << bits)))
    assert proof.in_place is False
    _, proof = proof_of("recursive_doubling", "all_gather", n, 100)
    if power:
        assert proof.bytes == 100 * n * (n - 1)
    _, proof = proof_of("recursive_doubling", "barrier", n)
    assert (proof.steps, proof.bytes) == ((n - 1).bit_length(), n * (n - 1).bit_length())


@pytest.mark.parametrize("n", [2, 3, 7, 12])
def test_direct(n):
    for operation, steps, peers in (("all_to_all", 1, 1), ("reduce_scatter", 1, 1), ("all_reduce", 2, 2)):
        answer, proof = proof_of("direct", operation, n, 10 * n)
        assert (proof.steps, proof.sent) == (steps, [10 * (n - 1) * peers] * n)
        assert moved(answer) == n * (n - 1) * steps
    answer, _ = proof_of("direct", "all_to_all", n)
    for r in range(n):  # staggered
        assert answer.dst[answer.src == r].tolist() == [(r + 1 + k) % n for k in range(n - 1)]


@pytest.mark.parametrize("operation", ["all_to_all", "all_reduce", "broadcast", "scatter"])
@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_window_bounds_what_is_under_way(operation, chunks, window):
    """Transfer k of a rank waits for its transfer k-w: among any w+1 in a row the last waits for the first."""
    answer, _ = proof_of("direct", operation, 6, chunks=chunks, window=window)
    for rank in range(6):
        own = np.flatnonzero((answer.src == rank) & (answer.dst != rank)).tolist()
        for k in range(window, len(own)):
            t = own[k]
            assert own[k - window] in answer.dep[answer.dep_ptr[t] : answer.dep_ptr[t + 1]]


@pytest.mark.parametrize("n", range(2, 34))
def test_trees(n):
    height = n.bit_length() - 1
    _, proof = proof_of("binary_tree", "all_reduce", n, 100)
    assert (proof.steps, proof.bytes) == (2 * height, 200 * (n - 1))
    _, proof = proof_of("binary_tree", "broadcast", n, 100, root=n // 2)
    assert (proof.steps, proof.bytes) == (height, 100 * (n - 1))
    answer, proof = proof_of("double_binary_tree", "all_reduce", n, 100)
    assert proof.steps <= 2 * (height + 1)
    assert (len(answer), set(answer.bytes.tolist())) == (4 * (n - 1), {50})


@pytest.mark.parametrize("n", range(2, 66))
def test_in_two_trees_who_is_inner_in_one_is_leaf_in_the_other(n):
    inner = [set(tree) - {-1} for tree in two_trees(n, None)]
    leaves = [set(range(n)) - some for some in inner]
    assert [len(some) for some in leaves] == [n // 2] * 2
    assert not leaves[0] & leaves[1]
    assert len(inner[0] & inner[1]) == n % 2  # two such trees have n-1 leaves if n is odd: one member is never a leaf
    for root in (0, n // 2, n - 1):
        trees = two_trees(n, root)
        assert all(tree[root] == -1 and tree.count(-1) == 1 and tree.count(root) == 1 for tree in trees)
        assert set(trees[0]) & set(trees[1]) == {-1, root}
    for tree in two_trees(n, None):
        assert max(tree.count(member) for member in range(n)) <= 2


def test_hierarchies_keep_traffic_local():
    """4 x 2 x 3: local_bw_aware sends 1/4, then 1/8 of the bytes on the upper dimensions; the baseline all of them."""
    dims, amount = (4, 2, 3), 24 * 100
    for optimization, sent in (
        ("local_bw_aware", [2 * 3 / 4, 2 * 1 / 2 / 4, 2 * 2 / 3 / 8]), ("baseline", [2 * 3 / 4, 2 * 1 / 2, 2 * 2 / 3]),
    ):  # fmt: skip
        more = {"dims": dims, "per_dim": ("ring",) * 3, "optimization": optimization}
        answer, proof = proof_of("hierarchical", "all_reduce", 24, amount, **more)
        distance = np.abs(answer.src - answer.dst)
        dimension = np.searchsorted([4, 8], distance, side="right")
        assert np.bincount(dimension, weights=answer.bytes).tolist() == [round(24 * amount * part) for part in sent]
        assert proof.steps == (3 + 1 + 4 + 1 + 3 if optimization == "local_bw_aware" else 6 + 2 + 4)


@pytest.mark.parametrize(
    ("name", "operation"), [("ring", "all_reduce"), ("binary_tree", "broadcast"), ("direct", "all_reduce")]
)
def test_chunks_follow_one_another_without_a_barrier(name, operation):
    one, single = proof_of(name, operation, 8)
    many, pipelined = proof_of(name, operation, 8, chunks=4)
    assert (len(many), pipelined.steps, pipelined.bytes) == (4 * len(one), single.steps + 3, single.bytes)
    assert many.src.tolist() == one.src.tolist() * 4  # chunk-major


@pytest.mark.parametrize("operation", ["all_reduce", "reduce_scatter", "all_gather", "all_to_all", "scatter"])
def test_cuts_are_balanced_and_complete(operation):
    for n, amount, pieces in ((3, 100, 1), (5, 7, 2), (4, 0, 3), (7, 1003, 4)):
        sizes = Layout(Collective(operation, n, amount), pieces).sizes()
        assert sizes.max() - sizes.min() <= 1
        assert sizes.sum() == amount * (n if operation == "all_gather" else 1)
        if operation in ("reduce_scatter", "all_to_all", "scatter"):  # what a rank owns does not depend on the chunks
            assert sizes.sum(axis=0).tolist() == balanced(amount, n).tolist()


def test_cuts_of_huge_buffers_do_not_overflow():
    assert int(balanced((1 << 60) + 5, 1_000_003).sum()) == (1 << 60) + 5


@pytest.mark.parametrize(
    ("name", "operation", "n", "rows", "seconds"),
    [("ring", "all_reduce", 1000, 1_998_000, 0.35), ("direct", "all_to_all", 1024, 1_047_552, 0.3)],
)
def test_a_million_rows_are_built_quickly(name, operation, n, rows, seconds):
    took = []
    for _ in range(3):
        begin = time.process_time()
        answer = schedule(name, Collective(operation, n, 64 << 20))
        took.append(time.process_time() - begin)
    assert moved(answer) == rows
    assert min(took) < seconds
    assert sum(column.nbytes for column in (answer.src, answer.dst, answer.bytes, answer.dep_ptr, answer.dep)) < 100e6
