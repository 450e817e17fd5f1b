"""LogGOPS: hand-computed schedules, laws, the plain simulator of loggops_reference.py, deadlocks, bad parameters."""

from __future__ import annotations

import random
from pathlib import Path

import loggops_reference as plain
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from distsim.api import simulate as run_trace
from distsim.errors import ConfigError, DeadlockError, UnknownNameError
from distsim.profiles.loggops import kernel
from distsim.profiles.loggops.model import simulate
from distsim.profiles.loggops.params import PRESETS, parameters
from distsim.trace.goal import parse

DEFAULT = {"L": 2500, "o": 1500, "g": 1000, "G": 6, "O": 0, "S": 65535}


def goal(*ranks: str) -> bytes:
    """A schedule, one text per rank."""
    return f"num_ranks {len(ranks)}\n".encode() + "".join(f"rank {r} {{ {text} }}\n" for r, text in enumerate(ranks)).encode()


def finish(*ranks: str, **params: object) -> list[int]:
    """Ends in ns."""
    said = DEFAULT | params
    spec = "loggops:" + ",".join(f"{key}={value}" for key, value in said.items())
    ends = simulate(parse(goal(*ranks), "made.goal"), parameters(spec)).finish
    assert not (ends % 1000).any()
    return (ends // 1000).tolist()


def test_one_eager_message():
    # sent by 1500; first byte in at 1500 + 2500; then o and 999 bytes of G
    assert finish("s: send 1000b to 1", "r: recv 1000b from 0") == [1500, 4000 + 1500 + 999 * 6]


def test_cpu_per_byte_counts_on_both_ends():
    # O > G: the sender's CPU is busy o + 9 O, the receiver's the same, from o + L on
    assert finish("s: send 10b to 1", "r: recv 10b from 0", O=100) == [1500 + 900, 4000 + 1500 + 900]


def test_rendezvous_holds_the_sender_until_the_receiver_takes_it():
    pair = ("s: send 100000b to 1; c: calc 10; c requires s", "w: calc 50000; r: recv 100000b from 0; r requires w")
    eager = finish(*pair, S=100_000)
    late = finish(*pair, S=99_999)
    # the receiver computes first (the CPU is taken at 0), then takes the message that has been waiting since 4000
    taken = 50_000
    assert eager == [1510, taken + 1500 + 99_999 * 6]
    assert late == [taken + 10, taken + 1500 + 99_999 * 6]


def test_ping_pong():
    there = "s: send 1b to 1; r: recv 1b from 1; r requires s"
    back = "r: recv 1b from 0; s: send 1b to 0; s requires r"
    one_way = 1500 + 2500 + 1500
    assert finish(there, back) == [2 * one_way, one_way + 1500]
    assert finish(there, back, S=0) == [2 * one_way, one_way + 1500 + 2500]  # the last send ends when it is taken


def test_incast_is_taken_one_by_one():
    senders = [f"s: send 101b to 0 tag {k}" for k in range(1, 5)]
    receives = "; ".join(f"r{k}: recv 101b from {k} tag {k}" for k in range(1, 5))
    assert finish(receives, *senders) == [4000 + 4 * (1500 + 600), *[1500] * 4]


def test_gap_between_messages_of_a_nic():
    two = "a: send 1b to 1; b: send 1b to 1"
    takes = "a: recv 1b from 0; b: recv 1b from 0"
    assert finish(two, takes, o=100, g=1000) == [1100, 1000 + 100 + 2500 + 100]
    # another NIC sends at once, the CPU is still the same; the receiver's NIC numbers are the sender's
    assert finish("a: send 1b to 1; b: send 1b to 1 cpu 0 nic 1", takes, o=100, g=1000) == [200, 100 + 100 + 2500 + 100]
    # another CPU as well: both leave at 0
    assert finish("a: send 1b to 1; b: send 1b to 1 cpu 1 nic 1", takes, o=100, g=1000) == [100, 100 + 2500 + 100]


def test_calcs_share_a_cpu_and_split_over_two():
    assert finish("a: calc 100; b: calc 50") == [150]
    assert finish("a: calc 100; b: calc 50 cpu 1") == [100]


def test_across_cpus_a_dependency_orders_but_does_not_delay():
    assert finish("a: calc 100; b: calc 50 cpu 1; b requires a") == [100]
    result = _result("a: calc 100; b: calc 50 cpu 1; b requires a")
    assert any("1 dependencies cross CPUs" in warning for warning in result.warnings)


def test_irequires_waits_for_the_start():
    # the send may begin when the receive has begun, though its message has not come
    waits = ("r: recv 1b from 1; s: send 1b to 1; s {} r", "w: recv 1b from 0; s: send 1b to 0; s requires w")
    with pytest.raises(DeadlockError, match="2 receives get no message"):
        finish(waits[0].format("requires"), waits[1])
    assert finish(waits[0].format("irequires"), waits[1]) == [2 * 5500, 5500 + 1500]


def test_a_reused_tag_is_matched_in_order():
    sends = "a: send 10b to 1 tag 3; b: send 20b to 1 tag 3; b requires a"
    takes = "a: recv 10b from 0 tag 3; x: calc 1; x requires a; b: recv 20b from 0 tag 3; b requires x"
    outcome = simulate(parse(goal(sends, takes), "made.goal"), parameters("loggops"))
    assert outcome.send.tolist() == [-1, -1, 0, -1, 1]


def test_wildcards_take_what_comes_first():
    receives = "a: recv 1b from -1 tag -1; b: recv 1b from -1 tag 7"
    late, early = "w: calc 9000; s: send 1b to 0 tag 7; s requires w", "s: send 1b to 0 tag 5"
    outcome = simulate(parse(goal(receives, late, early), "m"), parameters("loggops"))
    assert outcome.send[:2].tolist() == [4, 3]  # operations: a, b, w, s of rank 1, s of rank 2


def test_wildcards_that_fit_nothing_are_a_deadlock():
    receives = "a: recv 1b from -1 tag -1; b: recv 1b from -1 tag 7"
    schedule = parse(goal(receives, "w: calc 9000; s: send 1b to 0 tag 5; s requires w", "s: send 1b to 0 tag 7"), "m")
    with pytest.raises(DeadlockError, match='recv "b" of rank 0 from any rank'):
        simulate(schedule, parameters("loggops"))


def test_zero_bytes_cost_as_one():
    assert finish("s: send 0b to 1", "r: recv 0b from 0") == finish("s: send 1b to 1", "r: recv 1b from 0")
    assert any("0 bytes" in warning for warning in _result("s: send 0b to 1", "r: recv 0b from 0").warnings)


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        (("s: send 8b to 1 tag 2", "c: calc 1"), ['send "s" of rank 0 to rank 1 (8 B, tag 2) is never received', "1 sends"]),
        (("c: calc 1", "r: recv 8b from 0 tag 2"), ['recv "r" of rank 1 from rank 0 (8 B, tag 2) gets no message']),
        (("s: send 8b to 1 tag 2", "r: recv 8b from 0 tag 3"), ["tag 2) is never received", "tag 3) gets no message"]),
        (
            ("a: calc 1; b: calc 1; a requires b; b requires a",),
            ['calc "a" of rank 0 waits for calc "b"', "2 operations never run"],
        ),
    ],
)
def test_what_never_runs_is_an_error(ranks, said):
    with pytest.raises(DeadlockError) as error:
        finish(*ranks)
    for words in said:
        assert words in str(error.value)


def test_presets_and_their_overrides():
    assert parameters("loggops").spec == "loggops:L=2500,o=1500,g=1000,G=6,O=0,S=65535"
    ai = parameters("loggops:preset=ai,L=1us")
    assert (ai.latency, ai.overhead, ai.gap, ai.gap_per_byte, ai.eager) == (1_000_000, 200_000, 5000, 40, 0)
    assert parameters("loggops:preset=hpc").gap_per_byte == 180
    assert set(PRESETS) == {"loggopsim", "ai", "hpc"}
    # 0.04 ns a byte: 40 ps, exactly
    assert simulate(parse(goal("s: send 26b to 1", "r: recv 26b from 0"), "m"), ai).finish[1] == 1_200_000 + 200_000 + 1000


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("loggops:preset=none", UnknownNameError, "preset"),
        ("loggops:l=5", ConfigError, "unknown key 'l'"),
        ("loggops:L=fast", ConfigError, "L=fast"),
        ("loggops:L=-1", ConfigError, "L=-1"),
        ("loggops:G=-1", ConfigError, "G=-1"),
        ("loggops:G=1/0", ConfigError, "G=1/0"),
        ("loggops:G=nan", ConfigError, "G=nan"),
        ("loggops:S=many", ConfigError, "S=many"),
        ("loggops:L", ConfigError, "key=value"),
    ],
)
def test_bad_parameters(spec, error, said):
    with pytest.raises(error) as found:
        parameters(spec)
    assert said in str(found.value)


def test_a_time_beyond_the_clock_is_refused():
    with pytest.raises(ConfigError, match="takes too long"):
        finish("s: send 4000000000000000b to 1", "r: recv 4000000000000000b from 0", G=1000)
    far = "; ".join(f"c{k}: calc 4000000000000000" for k in range(4))
    with pytest.raises(ConfigError, match="range of the clock"):
        finish(far)


def test_sorting_of_many_released_operations_is_that_of_libstdcxx():
    # what std::sort (g++ 12) makes of 20 rows that compare equal: it is not stable above 16
    rows = list(range(20))
    op = [0] * (20 * kernel.OP)
    kernel.arrange(rows, 20, op, [0] * 64)
    assert rows == [10, 19, 18, 17, 16, 15, 14, 13, 12, 11, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    rows = list(range(16))
    kernel.arrange(rows, 16, op, [0] * 64)
    assert rows == list(range(16))


@given(st.lists(st.integers(1, 3), max_size=200))
def test_sorting_sorts(kinds):
    rows = list(range(len(kinds)))
    op = [0] * (len(kinds) * kernel.OP)
    for row, kind in enumerate(kinds):
        op[row * kernel.OP + kernel.KIND] = kind
    kernel.arrange(rows, len(rows), op, [0] * (2 * len(rows) + 2))
    assert sorted(rows) == list(range(len(kinds)))
    assert [kinds[row] for row in rows] == sorted(kinds)


def made(seed: int, ranks: int, pairs: int, cpus: int, nics: int, wild: bool = False) -> bytes:
    """A random schedule, at most 16 operations a rank that are ready together; it may deadlock."""
    chance = random.Random(seed)
    lines: list[list[str]] = [[] for _ in range(ranks)]
    labels: list[list[str]] = [[] for _ in range(ranks)]

    def add(rank: int, text: str, nic: bool = True) -> None:
        label = f"l{len(labels[rank])}"
        where = f" cpu {chance.randrange(cpus)}" + (f" nic {chance.randrange(nics)}" if nic else "")
        lines[rank].append(f"{label}: {text}{where}")
        if labels[rank] and (chance.random() < 0.6 or len(labels[rank]) % 8 == 0):
            word = "irequires" if chance.random() < 0.2 else "requires"
            lines[rank].append(f"{label} {word} {chance.choice(labels[rank][-4:])}")
        labels[rank].append(label)

    for _ in range(pairs):
        src, dst, tag = chance.randrange(ranks), chance.randrange(ranks), chance.randrange(3)
        size = chance.choice([0, 1, 10, 100, 1000])
        anyone, mark = (-1 if wild and chance.random() < 0.3 else src), (-1 if wild and chance.random() < 0.3 else tag)
        both = [(src, f"send {size}b to {dst} tag {tag}"), (dst, f"recv {size}b from {anyone} tag {mark}")]
        chance.shuffle(both)
        for rank, text in both:
            add(rank, text)
        if chance.random() < 0.4:
            add(chance.randrange(ranks), f"calc {chance.choice([0, 5, 700, 3000])}", nic=False)
    blocks = [f"rank {r} {{\n" + "\n".join(lines[r]) + "\n}" for r in range(ranks)]
    return (f"num_ranks {ranks}\n" + "\n".join(blocks)).encode()


params_ = st.fixed_dictionaries({
    "L": st.sampled_from([0, 1, 500]), "o": st.sampled_from([0, 1, 90]), "g": st.sampled_from([0, 7, 200]),
    "G": st.sampled_from([0, 1, 3]), "O": st.sampled_from([0, 2]), "S": st.sampled_from([0, 10, 10**9]),
})  # fmt: skip


def both(text: bytes, params: dict[str, int]):
    """(what the kernel finds or None for a deadlock, what the plain simulator finds)."""
    schedule = parse(text, "made.goal")
    found = plain.simulate(schedule, **params)
    spec = "loggops:" + ",".join(f"{key}={value}" for key, value in params.items())
    try:
        return simulate(schedule, parameters(spec)), found, schedule
    except DeadlockError:
        return None, found, schedule


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 24), st.integers(1, 3), st.integers(1, 2), st.booleans(), params_
)
def test_the_kernel_agrees_with_the_plain_simulator(seed, ranks, pairs, cpus, nics, wild, params):
    try:
        mine, found, schedule = both(made(seed, ranks, pairs, cpus, nics, wild), params)
    except AssertionError:
        assume(False)
        return
    stuck = len(found.done) < len(schedule) or found.lost > 0
    assert (mine is None) == stuck
    if mine is not None:
        assert (mine.finish // 1000).tolist() == found.finish
        assert mine.events == found.events


def test_some_of_those_schedules_run_and_some_do_not():
    ran = 0
    for seed in range(40):
        try:
            ran += both(made(seed, 3, 12, 2, 2), DEFAULT)[0] is not None
        except AssertionError:
            continue
    assert 5 < ran < 40


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    st.integers(0, 3000),
    st.integers(1, 3000),
    st.sampled_from("LogGO"),
)
def test_no_parameter_speeds_up_a_chain(sizes, base, more, name):
    """A message handed on from rank to rank: every cost that grows makes the end later, or leaves it."""
    ranks = [[] for _ in range(len(sizes) + 1)]
    for k, size in enumerate(sizes):
        ranks[k].append(f"s: send {size}b to {k + 1}" + ("; s requires r" if k else ""))
        ranks[k + 1].insert(0, f"r: recv {size}b from {k}")
    texts = ["; ".join(r) for r in ranks]
    usual = {"L": 100, "o": 50, "g": 10, "G": 2, "O": 1}
    less = finish(*texts, **usual | {name: base})
    assert max(finish(*texts, **usual | {name: base + more})) >= max(less)


def test_a_chain_in_closed_form():
    sizes = [1, 10, 1000]
    texts = ["s: send 1b to 1", "r: recv 1b from 0; s: send 10b to 2; s requires r",
             "r: recv 10b from 1; s: send 1000b to 3; s requires r", "r: recv 1000b from 2"]  # fmt: skip
    assert max(finish(*texts)) == sum(1500 + 2500 + 1500 + (size - 1) * 6 for size in sizes)


@pytest.mark.parametrize("seed", range(3))
def test_compiled_is_interpreted(monkeypatch, seed):
    text = made(seed, 6, 60, 2, 2, wild=True)
    found = []
    for form in ("python", "compiled"):
        monkeypatch.setenv("DISTSIM_KERNELS", form)
        try:
            outcome = simulate(parse(text, "made.goal"), parameters("loggops:G=0.37,S=50"))
            found.append([outcome.finish.tolist(), outcome.start.tolist(), outcome.send.tolist(), outcome.events])
        except DeadlockError as error:
            found.append(str(error))
    assert found[0] == found[1]


def _result(*ranks: str, **options: object):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.goal"
        path.write_bytes(goal(*ranks))
        return run_trace(str(path), network="loggops", **options)


def test_result_columns_add_up():
    result = _result("s: send 1001b to 1; c: calc 500; c requires s", "r: recv 1001b from 0")
    spans = result.spans()
    assert [spans.kinds[k] for k in spans.kind] == ["send", "compute", "recv"]
    assert spans.start.tolist() == [0, 1_500_000, 4_000_000]
    assert spans.end.tolist() == [1_500_000, 2_000_000, 4_000_000 + 1_500_000 + 6_000_000]
    assert result.makespan == spans.end.max()
    assert result.links.bytes.tolist() == [1001, 0, 0, 1001]
    assert result.links.busy.tolist() == [7_000_000, 0, 0, 7_000_000]  # g + 1000 G on either side
    assert result.counts == {"nodes": 3, "events": 4, "transfers": 1}
    assert np.isclose(result.profile_figures["cpu_busy_fraction"]["0"], (2.0 + 7.5) / (2 * 11.5))


def test_native_traces_run_on_it(tmp_path):
    import json

    nodes = [{"op": "compute", "duration": "10us"}, {"op": "all_reduce", "bytes": 4000}, {"op": "compute", "duration": "5us"}]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"format": "distsim-trace/1", "programs": [{"name": "p", "ranks": "0-3", "nodes": nodes}]}))
    result = run_trace(str(path), network="loggops:L=1000,o=0,g=0,G=1,O=0,S=1000000000")
    # ring: 2 (n - 1) steps of 1000 bytes, each L + 999 G behind the last, and the computations
    assert result.makespan == (10_000 + 6 * (1000 + 999) + 5000) * 1000
    assert run_trace(str(path), network="loggops:o=0,G=1,L=1000,g=0", algorithm="direct").makespan < result.makespan
