"""distsim collective, end to end: closed forms, groups, profile, bad inputs."""

from __future__ import annotations

import json
import math

import pytest

from distsim.cli.main import main

SWITCH = "switch:bandwidth=50GiBps,latency=500ns"


def document(capsys, *words):
    assert main(["collective", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("network", "ns"), [("analytic", 64_440 + 28_000), ("chunk", 126_600)])
def test_profile_astra_gives_its_cycles(capsys, network, ns):
    """The worked example of ASTRA-sim's semantics on a switch."""
    found = document(
        capsys, "all_reduce", "--size", "1MiB", "--ranks", "8", "--topo", SWITCH, "--algorithm", "ring", "--splits", "4",
        "--network", network, "--profile", "astra",
    )  # fmt: skip
    assert found["time_ns"] == ns
    assert found["per_rank_ns"] == {str(r): ns for r in range(8)}
    assert found["transfers"] == 4 * 14 * 8


def test_native_levels_take_their_closed_forms(capsys):
    """Ring all-reduce on a switch: 2 (n-1) steps of size/n over two hops of 500 ns at 50 GiB/s."""
    words = ("all_reduce", "--size", "1MiB", "--ranks", "8", "--topo", SWITCH, "--algorithm", "ring")
    rate, part, steps = 50 * 2**30, (1 << 20) / 8, 14
    once = math.ceil(part / rate * 1e12)
    assert document(capsys, *words, "--network", "analytic")["time_ps"] == pytest.approx(steps * (1_000_000 + once), abs=steps)
    assert document(capsys, *words, "--network", "chunk")["time_ps"] == steps * (1_000_000 + 2 * once)
    assert document(capsys, *words, "--network", "ideal")["time_ps"] == 0


def test_bandwidths_count_as_nccl_tests_does(capsys):
    found = document(capsys, "all_gather", "--size", "1MiB", "--ranks", "4", "--topo", SWITCH)
    buffer = 4 * (1 << 20)
    assert found["algbw"] == pytest.approx(buffer / found["time_ns"])
    assert found["busbw"] == pytest.approx(found["algbw"] * 3 / 4)


def test_groups_run_at_once_and_contend(tmp_path, capsys):
    """Two rings over the same four hosts take longer than one."""
    alone, both = tmp_path / "one.json", tmp_path / "two.json"
    alone.write_text("[0, 1, 2, 3]")
    both.write_text('{"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}')
    words = ("all_reduce", "--size", "4MiB", "--topo", "switch:hosts=4", "--network", "chunk", "--algorithm", "direct")
    one = document(capsys, *words, "--group", str(alone))
    two = document(capsys, *words, "--group", str(both))
    assert two["time_ns"] > 1.4 * one["time_ns"]
    assert two["transfers"] == 2 * one["transfers"]


def test_the_first_line_is_the_answer(capsys):
    assert main(["collective", "all_reduce", "--size", "64MiB", "--ranks", "16", "--topo", "fat_tree"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("all_reduce of 64 MiB on 16 ranks: ")
    assert "busbw" in first


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["all_reduce", "--ranks", "6", "--algorithm", "halving_doubling"], 1, "power of two"),
        (
            ["all_reduce", "--ranks", "6", "--topo", "ring", "--algorithm", "halving_doubling", "--profile", "astra"],
            1,
            "power of two",
        ),
        (["all_reduce", "--ranks", "4", "--algorithm", "rong"], 2, "Nearest: ring"),
        (["all_reduse", "--ranks", "4"], 2, "all_reduce"),
        (["all_reduce", "--ranks", "4", "--size", "4 bananas"], 2, "unknown size unit"),
        (["all_reduce", "--ranks", "4", "--topo", "fat_three"], 2, "Nearest: fat_tree"),
        (["all_reduce", "--ranks", "4", "--topo", "switch:bandwidth=0GB/s"], 2, "must be positive"),
        (["all_reduce", "--ranks", "400", "--topo", "fat_tree:k=4"], 2, "hosts"),
        (["all_reduce", "--ranks", "16", "--topo", "fat_tree:k=4", "--profile", "astra"], 2, "cannot run on fat_tree"),
        (["all_reduce", "--ranks", "4", "--topo", "ring:hosts=8", "--profile", "astra"], 2, "has 8 hosts for 4 ranks"),
        (["all_reduce", "--ranks", "0"], 2, "at least 2"),
        (["all_reduce", "--ranks", "4", "--splits", "0"], 2, "--splits 0"),
        (["all_reduce", "--ranks", "4", "--size", "1e400"], 2, "too large"),
        (["all_reduce", "--ranks", "4", "--endpoint-delay", "1e30s"], 2, "too large"),
        (["all_reduce", "--ranks", "4", "--network", "chunky"], 2, "chunk"),
        (["all_reduce", "--ranks", "1"], 1, "at least 2"),
        (["all_reduce", "--group", "/nowhere.json"], 2, "cannot read the group file"),
        (["broadcast", "--ranks", "4", "--topo", "switch", "--profile", "astra"], 1, "ASTRA-sim has no broadcast"),
        (["broadcast", "--ranks", "4", "--root", "7"], 1, "root 7 is not a member"),
    ],
)
def test_bad_inputs_end_in_one_message(words, code, message, capsys):
    assert main(["collective", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("distsim: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("text", ["[]", "{}", "[1, true]", "[[1]]", "nonsense", "[3, 3]", "[0, 99]"])
def test_bad_group_files(tmp_path, capsys, text):
    path = tmp_path / "group.json"
    path.write_text(text)
    assert main(["collective", "all_reduce", "--ranks", "4", "--topo", "switch", "--group", str(path)]) in (1, 2)
    assert capsys.readouterr().err.startswith("distsim: ")
