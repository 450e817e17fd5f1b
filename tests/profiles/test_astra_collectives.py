"""The astra profile on single collectives: worked examples, folding, the two kernel forms, refusals, parity."""

from __future__ import annotations

import csv
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import CollectiveError, ConfigError, DistsimError
from distsim.profiles.astra.config import AstraConfig, Implementation, NetworkDim, read_network, read_system
from distsim.profiles.astra.lower import job_of_collective
from distsim.profiles.astra.replay import simulate
from distsim.validation.astra import config_of_row


def config(kind="ring", n=8, algorithm="ring", operation="all_reduce", aware=False, **more):
    more = {"splits": 4, "local_memory_gbps": 1600.0} | more
    implementation = tuple(Implementation.parse(a) for a in algorithm.split("+"))
    return AstraConfig((NetworkDim(kind, n, 50.0, 500.0),), aware, {operation: implementation}, **more).checked()


def finish(operation, size, configuration, **more):
    return simulate(job_of_collective(operation, size, configuration), configuration, **more).finish


@pytest.mark.parametrize(
    ("kind", "aware", "cycles"), [("ring", False, 64_440), ("switch", False, 92_440), ("switch", True, 126_600)]
)
def test_worked_example_of_the_specification(kind, aware, cycles):
    """1 MiB all-reduce, 8 ranks, ring: 4 * (15 ep + 14 d + 7 R), d = 1110 on a ring."""
    assert set(finish("all_reduce", 1 << 20, config(kind, aware=aware)).tolist()) == {cycles}


@pytest.mark.parametrize(
    ("algorithm", "network", "cycles"),
    [("ring", False, 4_685_350), ("ring", True, 7_181_470), ("direct", False, 4_590), ("direct", True, 2_500_710)],
)
def test_1024_ranks_take_the_cycles_that_astra_sim_prints(algorithm, network, cycles):
    c = config("switch", 1024, algorithm, aware=network, splits=1)
    run = simulate(job_of_collective("all_reduce", 64 << 20, c), c)
    assert run.finish.tolist() == [cycles] * 1024
    assert run.folded
    assert run.events < 20_000  # one rank's worth, not a thousand
    assert run.messages == 2 * 1023 * 1024


def test_halving_doubling_closed_form():
    """S * (ep (2L+1) + sum d(offset, m) + sum R), fully connected: one hop each."""
    c = config("fully_connected", 16, "halvingDoubling")
    chunk, bandwidth = (1 << 20) // 4, 50 * 2**30 / 1e9
    sizes = [chunk >> k for k in range(1, 5)]
    hops = sum(int(500 + m / bandwidth) for m in sizes + sizes)
    reductions = sum(3 * int((chunk >> (k + 1)) / 1600) for k in range(1, 4))
    assert set(finish("all_reduce", 1 << 20, c).tolist()) == {4 * (10 * 9 + hops + reductions)}


cases = st.builds(
    lambda kind, n, algorithm, operation, aware, splits, active, size, endpoint, queues: (
        operation, size,
        lambda: config(
            kind, n, algorithm, operation, aware, splits=splits, active_chunks=active, endpoint_ns=endpoint,
            queues_per_dim=queues,
        ),
    ),
    st.sampled_from(["ring", "switch", "fully_connected"]), st.sampled_from([2, 3, 4, 5, 8, 16]),
    st.sampled_from(["ring", "direct", "direct1", "direct2", "halvingDoubling", "doubleBinaryTree"]),
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]), st.booleans(), st.integers(1, 4),
    st.integers(1, 4), st.sampled_from([1000, 7777, 65536, 1 << 20]), st.sampled_from([1, 10, 100]), st.sampled_from([1, 2]),
)  # fmt: skip


@given(cases)
@settings(max_examples=80, deadline=None)
def test_law_5_folded_equals_unfolded(case):
    operation, size, make = case
    try:
        c = make()
        folded = finish(operation, size, c)
    except CollectiveError:
        return
    assert folded.tolist() == finish(operation, size, c, allow_fold=False).tolist()


@given(cases)
@settings(max_examples=10, deadline=None)
def test_law_5_compiled_equals_interpreted(case):
    operation, size, make = case
    results = []
    for form in ("python", "compiled"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISTSIM_KERNELS", form)
            try:
                run = simulate(job_of_collective(operation, size, make()), make(), allow_fold=False)
            except CollectiveError:
                return
            results.append((run.finish.tolist(), run.events, run.messages, run.link_bytes.tolist(), run.link_busy.tolist()))
    assert results[0] == results[1]


@given(cases)
@settings(max_examples=60, deadline=None)
def test_law_1_every_byte_that_is_sent_arrives(case):
    """Congestion-aware links carry what the messages hold, over all their hops."""
    operation, size, make = case
    try:
        c = make()
        if not c.aware or c.dims[0].kind != "switch":
            return
        run = simulate(job_of_collective(operation, size, c), c, allow_fold=False)
    except CollectiveError:
        return
    ups, downs = run.link_bytes[: c.ranks], run.link_bytes[c.ranks :]
    assert ups.sum() == downs.sum() > 0


def test_refusals_where_astra_sim_hangs_or_crashes():
    for algorithm, n in (("halvingDoubling", 6), ("doubleBinaryTree", 6)):
        with pytest.raises(CollectiveError, match="power of two"):
            finish("all_reduce", 4096, config(n=n, algorithm=algorithm))
    with pytest.raises(CollectiveError, match="no broadcast"):
        finish("broadcast", 4096, config())
    with pytest.raises(ConfigError, match="endpoint_ns is 0"):
        config(endpoint_ns=0)
    with pytest.raises(CollectiveError, match="cannot be cut into 4 chunks"):
        finish("all_gather", 3, config(operation="all_gather"))
    with pytest.raises(CollectiveError, match="group of one"):
        job_of_collective("all_reduce", 4096, config(), (3,))


def test_files_of_astra_sim(tmp_path):
    network = tmp_path / "network.yml"
    network.write_text(
        "topology: [ Ring, Switch ]\nnpus_count: [ 2, 4 ]\nbandwidth: [ 50.0, 25.0 ]\nlatency: [ 500.0, 1000.0 ]\n"
    )
    dims, skipped = read_network(network)
    assert skipped == ()
    assert dims == (NetworkDim("ring", 2, 50.0, 500.0), NetworkDim("switch", 4, 25.0, 1000.0))
    system = tmp_path / "system.json"
    system.write_text(
        '{"scheduling-policy": "FIFO", "endpoint-delay": 12, "all-reduce-implementation": ["ring", "direct4"],'
        ' "boost-mode": 0, "endpoint-dely": 3}'
    )
    read = read_system(system, AstraConfig(dims))
    assert (read.policy, read.endpoint_ns) == ("FIFO", 12)
    assert [line.split(": ", 1)[1] for line in read.ignored] == [
        "boost-mode changes nothing on the analytical backends",
        "endpoint-dely is no key of ASTRA-sim's and was skipped (did you mean endpoint-delay?)",
    ]
    assert read.implementation("all_reduce") == (Implementation("ring"), Implementation("direct", 4))
    assert read.implementation("all_gather") == (Implementation("ring"), Implementation("ring"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topology: [ Rong ]\nnpus_count: [ 2 ]\nbandwidth: [ 5 ]\nlatency: [ 5 ]", "unknown ASTRA-sim topology 'Rong'"),
        ("topology: [ Ring ]\nnpus_count: [ 2, 4 ]\nbandwidth: [ 5 ]\nlatency: [ 5 ]", "differ in length"),
        ("topology: [ Ring ]\nnpus_count: [ 2 ]\nbandwidth: [ 5 ]", "key 'latency' is missing"),
        ("topology: [ Ring ]\nnpus_count: [ two ]\nbandwidth: [ 5 ]\nlatency: [ 5 ]", "whole number"),
        (": :", "is not YAML"),
        ("[1, 2]", "not an ASTRA-sim network file"),
    ],
)
def test_bad_network_files(tmp_path, text, message):
    path = tmp_path / "network.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_network(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"), ("[]", "not an ASTRA-sim system file"),
        ('{"endpoint-delay": "x"}', "whole number"), ('{"model-shared-bus": 1}', "not modelled"),
        ('{"all-reduce-implementation": ["rung"]}', "unknown ASTRA-sim collective implementation"),
    ],
)  # fmt: skip
def test_bad_system_files(tmp_path, text, message):
    path = tmp_path / "system.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_system(path, AstraConfig((NetworkDim("ring", 2, 50.0, 500.0),)))


def _rows(folder):
    path = next(p for p in (folder / "microbenchmarks.csv", folder / "microbenchmarks.csv.gz") if p.exists())
    data = path.read_bytes()
    return list(csv.DictReader(io.StringIO((gzip.decompress(data) if path.suffix == ".gz" else data).decode())))


def test_parity_with_astra_sim_unfolded(astra_reference):
    """Every third small row, all ranks simulated: the fold is not what makes it exact."""
    rows = [row for row in _rows(astra_reference) if int(row["npus"]) <= 8][::3]
    assert len(rows) > 100
    for row in rows:
        c = config_of_row(row)
        ends = finish(row["collective"], int(row["size_bytes"]), c, allow_fold=False)
        assert (int(ends.max()), int(ends.min())) == (int(row["cycles"]), int(row["cycles_min"])), row


@pytest.mark.slow
def test_parity_with_astra_sim_unfolded_all_rows(astra_reference, monkeypatch):
    monkeypatch.setenv("DISTSIM_KERNELS", "compiled")
    for row in _rows(astra_reference):
        c = config_of_row(row)
        ends = finish(row["collective"], int(row["size_bytes"]), c, allow_fold=False)
        assert (int(ends.max()), int(ends.min())) == (int(row["cycles"]), int(row["cycles_min"])), row


def test_every_refusal_is_a_distsim_error():
    for operation in ("all_reduce", "gather", "nothing"):
        for algorithm in ("ring", "doubleBinaryTree"):
            try:
                finish(operation, 4096, config(n=3, algorithm=algorithm, operation=operation))
            except DistsimError:
                continue
