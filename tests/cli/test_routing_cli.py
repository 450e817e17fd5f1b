"""--routing and the options of levels on the command line."""

from __future__ import annotations

import json

import pytest

from distsim.cli.main import main


def out(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_collective_under_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    times = {}
    for routing in ("static", "ecmp", "ecmp:seed=1", "spray"):
        words = ("collective", "all_to_all", "--size", "1MiB", "--topo", "fat_tree:k=4", "--routing", routing)
        document = json.loads(out(capsys, *words, "--network", "cut_through:size=4KiB", "--json"))
        assert document["routing"] == routing
        times[routing] = document["time_ps"]
    assert times["ecmp"] != times["ecmp:seed=1"]
    assert times["spray"] < min(times["ecmp"], times["ecmp:seed=1"])


def test_topo_lists_policies_and_prints_all_routes(capsys: pytest.CaptureFixture[str]) -> None:
    listed = out(capsys, "topo")
    for name in ("adaptive", "ecmp", "shortest", "spray", "static", "table", "valiant"):
        assert f"\n{name}: " in listed
    words = ("topo", "fat_tree:k=4", "--routing", "spray", "--route", "gpu0", "gpu9")
    assert out(capsys, *words).count("gpu0 to gpu9, 6 hops") == 4
    routes = json.loads(out(capsys, *words, "--json"))["routes"]
    assert len({tuple(route) for route in routes}) == 4


@pytest.mark.parametrize(("policy", "ends", "routes"), [
    ("ecmp", ("gpu0", "gpu3"), 1), ("spray", ("gpu0", "gpu3"), 1), ("adaptive", ("gpu0", "gpu3"), 1),
    ("ecmp", ("gpu0", "gpu9"), 1), ("spray", ("gpu0", "gpu9"), 16), ("adaptive", ("gpu0", "gpu9"), 4),
    ("spray", ("gpu0", "gpu8"), 1), ("ecmp:per=qp", ("gpu0", "gpu9"), 4),
])  # fmt: skip
def test_routes_of_a_cluster_of_servers(
    capsys: pytest.CaptureFixture[str], policy: str, ends: tuple[str, str], routes: int
) -> None:
    """Inside a server over NVSwitch, to the same rail over its switch, to another over any spine."""
    document = json.loads(out(capsys, "topo", "h100_superpod:nodes=4", "--routing", policy, "--route", *ends, "--json"))
    assert len(document["routes"]) == routes
    hops = {"gpu3": 2, "gpu8": 2, "gpu9": 4}[ends[1]]
    assert {len(route) for route in document["routes"]} == {hops}
    text = out(capsys, "topo", "h100_superpod:nodes=4", "--routing", policy, "--route", *ends).split("route", 1)[1]
    assert ("nvlink" in text) == (ends[1] == "gpu3")
    assert ("spine" in text) == (ends[1] == "gpu9")


def test_a_message_over_two_planes_takes_half_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    """From one server to another, over one plane or both."""
    times = {}
    for routing in ("static", "spray"):
        words = ("collective", "broadcast", "--size", "16MiB", "--ranks", "2", "--topo",
                 "alibaba_hpn:nodes=2,gpus_per_node=1,rails=1", "--routing", routing)  # fmt: skip
        times[routing] = json.loads(out(capsys, *words, "--network", "cut_through:size=16KiB", "--json"))["time_ps"]
    assert times["spray"] == pytest.approx(times["static"] / 2, rel=0.02)


def test_run_under_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("run", "llama3_8b_tp8_dp8", "--topo", "fat_tree:k=8", "--network", "analytic", "--json")
    plain, sprayed = (json.loads(out(capsys, *words, "--routing", routing)) for routing in ("static", "spray"))
    assert sprayed["makespan_ns"] == plain["makespan_ns"]  # no route is narrower than a host's link


@pytest.mark.parametrize(("words", "complaint"), [
    (("topo", "ring:hosts=4", "--routing", "ecpm"), "ecmp"),
    (("collective", "all_reduce", "--topo", "ring:hosts=4", "--routing", "spray:pahts=3"), "paths"),
    (("collective", "all_reduce", "--topo", "ring:hosts=4", "--network", "chunk:credits=none"), "credits"),
    (("collective", "all_reduce", "--topo", "ring:hosts=4", "--routing", "ecmp", "--profile", "astra"), "no effect"),
    (("run", "llama3_8b_tp8_dp8", "--routing", "ecmp", "--profile", "astra"), "no effect"),
])  # fmt: skip
def test_bad_words_are_refused(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], complaint: str) -> None:
    assert main(list(words)) == 2
    assert complaint in capsys.readouterr().err
