"""The front door: specs, windows, rates, limits, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from distsim.errors import ConfigError
from distsim.serving.requests.read import RequestsSpec, requests
from distsim.serving.requests.table import requests_of
from distsim.units import PS_PER_S

LENGTHS = "uniform:prompt=100-2000,output=10-500"


@pytest.fixture
def ten(tmp_path):
    path = tmp_path / "ten.csv"
    path.write_text("arrival,prompt,output\n" + "".join(f"{i},{10 * (i + 1)},{i + 1}\n" for i in range(10)))
    return str(path)


def seconds(table):
    return (table.arrival / PS_PER_S).tolist()


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("arrival", "prompt", "output"))


def test_windows_and_rates_of_a_trace(ten):
    assert seconds(requests(ten, stretch=4)) == [4 * i for i in range(10)]
    assert seconds(requests(ten, stretch=0.5)) == [i / 2 for i in range(10)]
    assert seconds(requests(ten, qps=4)) == [i / 4 for i in range(10)]
    assert seconds(requests(ten, n=3)) == [0, 1, 2]
    window = requests(ten, start="3s", duration="4s", stretch=2)
    assert seconds(window) == [0, 2, 4, 6]
    assert window.prompt.tolist() == [40, 50, 60, 70]
    assert "7 asked" not in "".join(requests(ten, n=7).warnings)
    assert "10 requests of the 12 asked for" in requests(ten, n=12).warnings[0]


def test_options_in_the_spec_are_those_beside_it(ten):
    assert same(requests(f"plain:file={ten},stretch=4,limit=3"), requests(ten, stretch=4, n=3))
    assert same(requests(f"{ten}:start=3s,duration=4s"), requests(ten, start="3s", duration="4s"))
    assert same(requests(f"plain:file={ten},stretch=4", qps=2), requests(ten, qps=2))
    assert same(requests("poisson:qps=9", qps=2, lengths=LENGTHS, n=9), requests("poisson:qps=2", lengths=LENGTHS, n=9))


def test_the_seed_decides_all():
    first = requests("poisson:qps=4", lengths=LENGTHS, n=500, seed=7)
    assert same(first, requests("poisson:qps=4", lengths=LENGTHS, n=500, seed=7))
    other = requests("poisson:qps=4", lengths=LENGTHS, n=500, seed=8)
    assert not np.any(first.arrival == other.arrival)
    assert not np.array_equal(first.prompt, other.prompt)
    assert np.array_equal(first.arrival, requests("poisson:qps=4", lengths="fixed:prompt=1,output=1", n=500, seed=7).arrival)
    assert np.array_equal(first.prompt, requests("gamma:qps=1", lengths=LENGTHS, n=500, seed=7).prompt)


def test_a_file_with_other_arrivals_or_lengths(ten):
    timed = requests(ten, arrivals="uniform:qps=2", n=4)
    assert seconds(timed) == [0.5, 1, 1.5, 2]
    assert timed.prompt.tolist() == [10, 20, 30, 40]
    faster = requests(ten, arrivals="uniform:qps=2", qps=4)
    assert seconds(faster) == [(i + 1) / 4 for i in range(10)]
    drawn = requests(ten, lengths="fixed:prompt=7,output=2", stretch=2)
    assert drawn.prompt.tolist() == [7] * 10
    assert seconds(drawn)[-1] == 18
    assert "not its own" in drawn.warnings[0]


def test_limits_are_counted(ten):
    table = requests(ten, max_prompt=50, max_output=8)
    assert table.prompt.tolist() == [10, 20, 30, 40, 50, 50, 50, 50, 50, 50]
    assert table.output.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    assert table.warnings == ("5 requests are clamped to max_prompt=50,max_output=8",)
    total = requests(ten, max_total=63)
    assert total.prompt.tolist()[5:] == [60, 62, 62, 62, 62]
    assert total.output.tolist()[5:] == [3, 1, 1, 1, 1]
    generated = requests("static", lengths="fixed:prompt=100,output=10", n=3, max_total=50)
    assert (generated.prompt + generated.output).tolist() == [50] * 3
    assert generated.warnings == ("3 requests are clamped to max_total=50",)


def test_clamped_prompts_lose_their_last_numbers(tmp_path):
    path = tmp_path / "shared.jsonl"
    path.write_text('{"arrival": 0, "prompt": 40, "output": 20, "hashes": [1, 2, 3]}\n' * 2)
    assert list(requests(str(path)).hashes[0]) == [1, 2, 3]
    assert list(requests(str(path), max_prompt=20).hashes[1]) == [1]
    assert list(requests(str(path), max_output=5).hashes[1]) == [1, 2]


def test_owners(ten, tmp_path):
    table = requests(ten, tenant="batch", priority=3, deadline="30s")
    assert table.names == ("batch",)
    assert set(table.priority.tolist()) == {3}
    assert set(table.deadline.tolist()) == {30 * PS_PER_S}
    owned = tmp_path / "owned.csv"
    owned.write_text("arrival,prompt,output,tenant\n0,1,1,x\n1,1,1,y\n")
    with pytest.raises(ConfigError, match="tenants of its own: x, y"):
        requests(str(owned), tenant="z")


def test_a_spec_is_a_mapping(ten):
    spec = RequestsSpec.model_validate({"requests": "poisson", "qps": 4, "lengths": LENGTHS, "n": 10, "seed": 3})
    assert same(spec.read(), requests("poisson:qps=4", lengths=LENGTHS, n=10, seed=3))
    assert RequestsSpec.model_validate(spec.model_dump(exclude_none=True)) == spec


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("poisson:qps=4", {"n": 5}, "how long the requests are"), ("poisson:qps=4", {"lengths": LENGTHS}, "how many requests"),
        ("poisson", {"lengths": LENGTHS, "n": 5}, "no rate"), ("poison:qps=4", {}, "Nearest: poisson"),
        ("azzure:file=x", {}, "Nearest: azure"), ("poisson:qps=4", {"lengths": "lognorml:a=1", "n": 5}, "Nearest: lognormal"),
        ("azure", {}, "is missing"), ("azure:file=absent.csv", {}, "cannot be read"), ("absent.csv", {}, "no such file"),
        ("poisson:qps=4", {"lengths": LENGTHS, "n": 0}, "greater than or equal to 1"),
        ("poisson:qps=4", {"qsp": 1}, "Nearest: qps"),
        ("poisson:qps=4", {"lengths": LENGTHS, "n": 5, "stretch": 2}, "stretch is for files"),
        ("poisson:qps=4", {"lengths": LENGTHS, "n": 5, "order": "sort"}, "order is for files"),
        ("poisson:qps=4", {"lengths": LENGTHS, "duration": "1ns"}, "no request arrives"),
        ("static", {"lengths": LENGTHS, "n": 5, "qps": 3}, "come at once"),
        ("TEN", {"stretch": 2, "qps": 2}, "both say"), ("plain:file=TEN,stretch=2,qps=3", {}, "both say"),
        ("plain:file=TEN,stretch=2", {"stretch": 2}, "given twice"), ("plain:file=TEN,strech=2", {}, "Nearest: stretch"),
        ("TEN", {"start": "60s"}, "no request arrives"), ("TEN", {"start": "2500ms", "duration": "1ms"}, "no request arrives"),
        ("TEN", {"n": 1, "qps": 2}, "no rate to scale"), ("TEN", {"stretch": 1e9}, "53 days"),
        ("TEN", {"arrivals": "poisson:qps=1", "stretch": 2}, "own arrivals"), ("TEN", {"arrivals": "TEN"}, "unknown arrivals"),
        ("TEN", {"sessions": "turns=2"}, "generated"), ("TEN", {"seed": -1}, "greater than or equal to 0"),
        ("TEN", {"order": "shuffle"}, "'error' or 'sort'"), ("", {}, "unknown requests"),
    ],
)  # fmt: skip
def test_bad_specs_are_refused_in_words(ten, spec, options, words):
    options = {name: value.replace("TEN", ten) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(ConfigError) as caught:
        requests(spec.replace("TEN", ten), **options)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_tables_are_checked():
    two = np.array([1, 2])
    for columns, words in (
        ({"after": np.array([-1, 1])}, "request 1 follows request 1"), ({"after": np.array([-2, 0])}, "follows request -2"),
        ({"think": np.array([0, -1])}, "negative think"), ({"deadline": np.array([-1, 0])}, "negative deadline"),
        ({"priority": np.array([1])}, "1 values of priority"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            requests_of(two, two, two, **columns)
    plain = requests_of(two, two, two)
    assert (plain.deadline.tolist(), plain.after.tolist(), plain.think.tolist()) == ([0, 0], [-1, -1], [0, 0])
