"""Every registered algorithm x operation x size x chunks is proved by the checker that ships with the package."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim import registry
from distsim.collectives.check import check
from distsim.collectives.schedule import OPERATIONS, Collective, empty, schedule
from distsim.errors import CollectiveError, UnknownNameError
from distsim.testing import check_collective_algorithm

FLAT = [name for name in registry.names("collective") if name != "hierarchical"]
PAIRS = [(name, op) for name in FLAT for op in registry.lookup("collective", name).operations]
ROOTED = ("broadcast", "reduce", "gather", "scatter")


def powers_only(name):
    return name == "halving_doubling"


@pytest.mark.parametrize(("name", "operation"), PAIRS)
def test_small_groups_in_every_variation(name, operation):
    served = check_collective_algorithm(name, operations=[operation], sizes=range(1, 7), chunks=(1, 2, 3, 4), amounts=(97, 0))
    assert served == {operation: [1, 2, 4] if powers_only(name) else [1, 2, 3, 4, 5, 6]}


@pytest.mark.parametrize(("name", "operation"), PAIRS)
def test_larger_groups(name, operation):
    for size in [*range(7, 18), 32]:
        if powers_only(name) and size & (size - 1):
            with pytest.raises(CollectiveError, match="power of two"):
                schedule(name, Collective(operation, size, 1003))
            continue
        root = size // 3 if operation in ROOTED else 0
        collective = Collective(operation, size, 1003, 1 if size == 32 else 1 + size % 2, root)
        check(schedule(name, collective), collective)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_at_least_two_algorithms(operation):
    assert len([name for name, op in PAIRS if op == operation]) >= 2


@pytest.mark.parametrize("operation", registry.lookup("collective", "direct").operations)
@pytest.mark.parametrize("window", [1, 2, 3])
def test_direct_with_a_window(operation, window):
    check_collective_algorithm("direct", operations=[operation], sizes=(2, 5, 6), amounts=(97,), window=window)


@settings(max_examples=150, deadline=None)
@given(
    pair=st.sampled_from(PAIRS), size=st.integers(1, 12), amount=st.integers(0, 5000), chunks=st.integers(1, 4),
    root=st.integers(0, 11), window=st.integers(0, 12),
)  # fmt: skip
def test_law_every_schedule_is_proved_or_refused(pair, size, amount, chunks, root, window):
    name, operation = pair
    collective = Collective(operation, size, amount, chunks, root % size, window)
    try:
        answer = schedule(name, collective)
    except CollectiveError:
        assert powers_only(name)
        assert size & (size - 1)
        return
    check(answer, collective, seed=amount)


HIERARCHIES = [
    ((2, 3), ("ring", "direct")), ((4, 2), ("halving_doubling", "ring")), ((3, 1, 2), ("direct", "ring", "ring")),
    ((2, 2, 3), ("ring", "halving_doubling", "direct")), ((2, 3), ("ring", "halving_doubling")), ((4, 1), ("ring", "ring")),
    ((2, 3, 2), ("direct",) * 3), ((3, 3), ("binary_tree",) * 2), ((4, 3), ("ring", "double_binary_tree")),
    ((3, 4), ("double_binary_tree",) * 2), ((4, 2), ("recursive_doubling",) * 2), ((5,), ("direct",)),
]  # fmt: skip


def can_serve(operation, dims, per_dim, optimization):
    """Whether the algorithm of every dimension has what is asked of it there."""
    asked = [{operation} for _ in dims]
    if operation == "all_reduce" and optimization == "local_bw_aware":
        last = max(d for d, size in enumerate(dims) if size > 1)
        asked = [{"all_reduce"} if d == last else {"reduce_scatter", "all_gather"} for d in range(len(dims))]
    able = [set(registry.lookup("collective", name).operations) for name in per_dim]
    powers = all(not powers_only(name) or not size & (size - 1) for name, size in zip(per_dim, dims, strict=True))
    return powers and all(need <= have for need, have, size in zip(asked, able, dims, strict=True) if size > 1)


@pytest.mark.parametrize("optimization", ["local_bw_aware", "baseline"])
@pytest.mark.parametrize(("dims", "per_dim"), HIERARCHIES)
def test_hierarchies_are_proved_or_refused(dims, per_dim, optimization):
    size, served = 1, []
    for d in dims:
        size *= d
    for operation in OPERATIONS:
        for chunks, root, amount in ((1, 0, 1003), (2, size // 2, 1003), (3, size - 1, 5)):
            collective = Collective(operation, size, amount, chunks, root, 0, dims, per_dim, optimization)
            if not can_serve(operation, dims, per_dim, optimization):
                with pytest.raises(CollectiveError, match=r"has no|power of two"):
                    schedule("hierarchical", collective)
                continue
            check(schedule("hierarchical", collective), collective)
            served.append(operation)
    if set(per_dim) == {"direct"}:
        assert set(served) == set(OPERATIONS)


def test_the_shipped_check_takes_options():
    dims, per_dim = (2, 2), ("ring", "ring")
    served = check_collective_algorithm("hierarchical", operations=["all_reduce"], sizes=[4], dims=dims, per_dim=per_dim)
    assert served == {"all_reduce": [4]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"operation": "all_reduce", "size": 0, "bytes": 1}, "size >= 1"),
        ({"operation": "all_reduce", "size": 2, "bytes": -1}, "bytes >= 0"),
        ({"operation": "all_reduce", "size": 2, "bytes": 1, "chunks": 0}, "chunks >= 1"),
        ({"operation": "all_reduce", "size": 2, "bytes": 1, "window": -1}, "window >= 0"),
        ({"operation": "broadcast", "size": 2, "bytes": 1, "root": 2}, "root 2"),
        ({"operation": "gather", "size": 2, "bytes": 1}, "binary_tree, direct"),
    ],
)
def test_nonsense_is_refused(fields, words):
    with pytest.raises(CollectiveError, match=words):
        schedule("ring", Collective(**fields))


@pytest.mark.parametrize(
    ("dims", "per_dim", "words"), [((2, 2), ("ring", "ring"), "dims"), ((2, 3), ("ring",), "per_dim"), ((), (), "dims")]
)
def test_dimensions_that_do_not_fit_are_refused(dims, per_dim, words):
    with pytest.raises(CollectiveError, match=words):
        schedule("hierarchical", Collective("all_reduce", 6, 8, dims=dims, per_dim=per_dim))


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(UnknownNameError, match="all_reduce"):
        schedule("ring", Collective("allreduce", 2, 8))
    with pytest.raises(UnknownNameError, match="halving_doubling"):
        schedule("halfing_doubling", Collective("all_reduce", 2, 8))
    with pytest.raises(UnknownNameError, match="baseline"):
        schedule("hierarchical", Collective("all_reduce", 2, 8, dims=(2,), per_dim=("ring",), optimization="base"))


def test_a_refusal_names_the_dimension():
    with pytest.raises(CollectiveError, match=r"dimension 1 of \(2, 3\).*group of 3"):
        schedule("hierarchical", Collective("all_reduce", 6, 8, dims=(2, 3), per_dim=("ring", "halving_doubling")))


class Lazy:
    """Claims an operation and moves nothing."""

    operations = ("all_reduce",)

    def schedule(self, collective):
        return empty(collective)


class Picky(Lazy):
    def schedule(self, collective):
        raise CollectiveError("not today")


@pytest.mark.parametrize(("wrong", "words"), [(Lazy, "are missing"), (Picky, "without naming the size")])
def test_the_shipped_check_finds_wrong_algorithms(monkeypatch, wrong, words):
    monkeypatch.setitem(registry._components["collective"], "wrong", wrong)
    with pytest.raises(AssertionError, match=words):
        check_collective_algorithm("wrong", sizes=(1, 3))


def test_halving_doubling_on_six_offers_what_works():
    with pytest.raises(CollectiveError, match=r"(?s)group of 6.*groups of 4 and 8.*ring"):
        schedule("halving_doubling", Collective("all_reduce", 6, 8))
