"""Compute-duration providers: hand-worked numbers, the contract, refusals."""

from __future__ import annotations

import pytest
from building import graph, program
from hypothesis import given
from hypothesis import strategies as st

from distsim.cost.check import check_cost_provider
from distsim.cost.rescaled import Factor
from distsim.errors import ConfigError, TraceError
from distsim.registry import lookup, names
from distsim.run_spec import RunSpec, cost_provider
from distsim.trace.graph import NodeType

PROVIDERS = {
    "recorded": lambda: lookup("cost", "recorded")(), "roofline": lambda: lookup("cost", "roofline")(1e15, 1e12),
    "rescaled": lambda: lookup("cost", "rescaled")(Factor(1.5), ("",)),
    "typical": lambda: lookup("cost", "typical")(graph(program([(0, NodeType.COMP, [], {"duration_ps": 5})]))),
}  # fmt: skip


def test_every_registered_provider_is_under_contract():
    assert set(names("cost")) == set(PROVIDERS)


rows = st.lists(
    st.tuples(
        st.sampled_from([NodeType.COMP, NodeType.MEM_LOAD, NodeType.MEM_STORE, NodeType.METADATA, NodeType.COMM_COLL]),
        st.integers(0, 10**12), st.integers(0, 10**15), st.integers(0, 10**11), st.booleans(),
    ),
    max_size=12,
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(PROVIDERS))
@given(rows)
def test_contract(name, rows):
    made = [
        (i, kind, [], {"duration_ps": duration, "num_ops": ops, "tensor_size": size, "cpu": cpu})
        for i, (kind, duration, ops, size, cpu) in enumerate(rows)
    ]
    check_cost_provider(PROVIDERS[name](), program(made))


def test_roofline_takes_the_longer_of_arithmetic_and_traffic():
    p = program([
        (0, NodeType.COMP, [], {"num_ops": 2 * 10**12, "tensor_size": 10**6}),
        (1, NodeType.COMP, [], {"num_ops": 10**6, "tensor_size": 3 * 10**9}),
        (2, NodeType.MEM_LOAD, [], {"num_ops": 10**18, "tensor_size": 10**9}),
        (3, NodeType.COMP, [], {"num_ops": 10**12, "cpu": True, "duration_ps": 77}),
        (4, NodeType.COMP, [], {"duration_ps": 55}),
    ])  # fmt: skip
    found = PROVIDERS["roofline"]().durations(p, "test").tolist()
    assert found == [2 * 10**9, 3 * 10**9, 10**9, 77, 55]


def test_missing_information_is_an_error_that_says_how_to_mend_it():
    with pytest.raises(TraceError, match=r"no recorded duration(.|\n)*--compute roofline"):
        PROVIDERS["recorded"]().durations(program([(7, NodeType.COMP, [], {"num_ops": 5})]), "rank 0")
    with pytest.raises(TraceError, match="neither num_ops, tensor_size nor a recorded duration"):
        PROVIDERS["roofline"]().durations(program([(7, NodeType.COMP, [], {})]), "rank 0")
    assert PROVIDERS["recorded"]().durations(program([(7, NodeType.COMP, [], {})]), "rank 0").tolist() == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute": "roofline"}, "needs the device"), ({"compute": "roofline", "peak": "989TFLOPS"}, "needs the device"),
        ({"peak": "989TFLOPS"}, "no effect"),
        ({"compute": "roofline", "peak": "fast", "memory_bandwidth": "1TB/s"}, "not a compute rate"),
        ({"compute": "roofline", "peak": "0TFLOPS", "memory_bandwidth": "1TB/s"}, "must be positive"),
    ],
)  # fmt: skip
def test_there_is_no_default_hardware(options, message):
    with pytest.raises(ConfigError, match=message):
        cost_provider(RunSpec(trace="x", **options), graph(program([])))
