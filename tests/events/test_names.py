"""What names in an events file mean, and what is refused."""

import numpy as np
import pytest
from events_network import link

from distsim.errors import ConfigError, DistsimError
from distsim.events.model import events_of, read_events, shipped
from distsim.events.select import hosts, links, ranks, switches


def names(topology, *selected):
    return sorted(topology.link_name(number) for number in links(topology, list(selected), "here").tolist())


def test_links_by_ends_direction_node_and_domain(diamond):
    assert names(diamond, "leaf0-spine1") == ["leaf0->spine1", "spine1->leaf0"]
    assert names(diamond, "leaf0->spine1") == ["leaf0->spine1"]
    assert names(diamond, "gpu[0-1]->leaf0") == ["gpu0->leaf0", "gpu1->leaf0"]
    assert names(diamond, "gpu[*]->leaf?") == [f"gpu{n}->leaf{n // 2}" for n in range(4)]
    assert len(names(diamond, "spine1")) == 4
    assert len(names(diamond, "up")) == len(names(diamond, "u*")) == 8
    assert len(names(diamond, "spine*-leaf*")) == 8
    assert len(names(diamond, "up", "gpu0-leaf0")) == 10
    assert names(diamond, "gpu[0-3:2]->leaf*") == ["gpu0->leaf0", "gpu2->leaf1"]


def test_names_may_hold_dashes(tmp_path):
    from distsim.topology.custom import load

    path = tmp_path / "named.yaml"
    path.write_text(
        "hosts: [a-1, a-2]\nswitches: [sw-x]\nlink_types: {port: {bandwidth: 50GB/s, latency: 1us}}\n"
        "links: [{from: [a-1, a-2], to: sw-x, type: port, pairs: all}]\n"
    )
    topology = load(str(path))
    assert links(topology, "a-1-sw-x", "here").tolist() == sorted([link(topology, "a-1->sw-x"), link(topology, "sw-x->a-1")])


@pytest.mark.parametrize(
    ("name", "near"),
    [("leaf0-spine9", "spine1"), ("laef0", "leaf0"), ("leaf0-leaf1", "leaf0-spine0"), ("upp", "up"), ("gpu[0-x]-leaf0", "")],
)
def test_wrong_links_get_near_names(diamond, name, near):
    with pytest.raises(ConfigError, match="here") as caught:
        links(diamond, name, "here")
    assert near in str(caught.value)


def test_switches_hosts_and_ranks(diamond):
    assert switches(diamond, "spine*", "here") == [6, 7]
    assert hosts(diamond, ["gpu[1-2]", "gpu0"], "here") == [1, 2, 0]
    assert ranks("0-2,7", 8, "here") == [0, 1, 2, 7]
    assert ranks([3, 1], 8, "here") == [1, 3]
    for wrong in (lambda: switches(diamond, "gpu0", "here"), lambda: hosts(diamond, "leaf0", "here"),
                  lambda: ranks(8, 8, "here"), lambda: ranks("a", 8, "here"), lambda: ranks([], 8, "here")):  # fmt: skip
        with pytest.raises(ConfigError, match="here"):
            wrong()


GOOD = [
    {"at": "10ms", "link": "a-b", "bandwidth": "25%", "until": "20ms"},
    {"at": 0, "switch": ["s", "t"], "down": True, "detect": "1ms"},
    {"at": "1us", "rank": 5, "slow": 1.3},
    {"at": "1us", "rank": "0-3", "lost": True, "replace_after": "60s"},
    {"at": 0, "link": "rail", "jitter": {"mean": "2us", "distribution": "uniform"}},
    {"at": 0, "background": {"from": "a", "to": "b", "bytes": 4096, "every": "5ms", "count": 20}},
]


@pytest.mark.parametrize("event", GOOD)
def test_what_is_said_is_kept(event):
    (made,) = events_of({"seed": 3, "events": [event]}).events
    said = made.model_dump(by_alias=True, exclude_none=True)
    assert {key: said[key] for key in event if key not in ("at", "background", "jitter")} == {
        key: value for key, value in event.items() if key not in ("at", "background", "jitter")
    }
    assert made.at == str(event["at"])


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"at": 0, "lnk": "a"}, "link"),
        ({"at": 0, "link": "a", "rank": 3}, "link and rank"),
        ({"at": 0, "link": "a"}, "says one of"),
        ({"at": 0, "link": "a", "down": True, "bandwidth": "5%"}, "says one of"),
        ({"at": 0, "link": "a", "bandwidth": "0%"}, "down: true"),
        ({"at": 0, "link": "a", "bandwidth": "101%"}, "100 %"),
        ({"at": 0, "link": "a", "bandwidth": "x%"}, "percentage"),
        ({"at": 0, "link": "a", "bandwidth": "5%", "detect": "1ms"}, "detect goes with down"),
        ({"at": 5, "link": "a", "down": True}, "no unit"),
        ({"at": "5ms", "until": "5ms", "link": "a", "down": True}, "not after"),
        ({"link": "a", "down": True}, "'at' is missing"),
        ({"at": 0, "rank": 1}, "says one of"),
        ({"at": 0, "rank": 1, "slow": 0.9}, "greater than or equal to 1"),
        ({"at": 0, "rank": 1, "slow": float("nan")}, "slow"),
        ({"at": 0, "rank": 1, "slow": float("inf")}, "slow"),
        ({"at": 0, "rank": 1, "slow": 2, "replace_after": "1s"}, "lost"),
        ({"at": 0, "rank": 1, "lost": True, "until": "1s"}, "replace_after"),
        ({"at": 0, "rank": 1, "lost": True, "replace_after": 0}, "more than 0"),
        ({"at": 0, "link": "a", "jitter": {"mean": "1us", "distribution": "normal"}}, "exponential"),
        ({"at": 0, "background": {"from": "a", "to": "b", "bytes": 1, "count": 3}}, "go together"),
        ({"at": 0, "background": {"frm": "a", "to": "b", "bytes": 1}}, "from"),
        ({"at": 0, "background": {"from": "a", "to": "b", "bytes": "1zB"}}, "unit"),
        ({"at": 0, "link": "a", "jitter": {"mean": "2h"}}, "no jitter"),
        ({"at": 0, "link": [], "down": True}, "names nothing"),
        ({"at": 0, "switch": "", "down": True}, "names nothing"),
        ({"at": 0, "background": 7}, "background"),
        ("x", "no event"),
        ({}, "unclear"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(event, said):
    with pytest.raises(ConfigError, match="file: event 2") as caught:
        events_of({"events": [GOOD[0], event]}, "file")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "document", [None, [], {"events": 3}, {"event": []}, {"events": [], "seeds": 3}, {"events": [], "seed": "x"}]
)
def test_other_documents_are_refused(document):
    with pytest.raises(ConfigError):
        events_of(document)


def test_files(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_events(str(tmp_path / "none.yaml"))
    bad = tmp_path / "bad.yaml"
    bad.write_text("events: [}")
    with pytest.raises(DistsimError, match="readable YAML"):
        read_events(str(bad))
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DistsimError):
        read_events(str(bad))
    assert shipped()
    for name in shipped():
        assert read_events(name).events


def test_time_is_what_stretches_say(diamond):
    """Overlapping faults: the worst counts, and what is over is over."""
    from distsim.events.links import stretches

    made = stretches(diamond, events_of({"events": [
        {"at": "10us", "link": "leaf0->spine0", "bandwidth": "50%", "until": "40us"},
        {"at": "20us", "link": "leaf0-spine0", "bandwidth": "10GB/s", "latency": "3us", "until": "30us"},
        {"at": "35us", "link": "leaf0->spine0", "down": True, "detect": "2us", "until": "50us"},
    ]}))  # fmt: skip
    at = {moment // 1_000_000: topology for moment, topology in made}
    there, back = link(diamond, "leaf0->spine0"), link(diamond, "spine0->leaf0")
    assert sorted(at) == [10, 20, 30, 35, 37, 40, 50]
    assert [at[t].link_bandwidth[there] / 1e9 for t in sorted(at)] == [25, 10, 25, 0, 0, 0, 50]
    assert [at[t].link_bandwidth[back] / 1e9 for t in sorted(at)] == [50, 10, 50, 50, 50, 50, 50]
    assert at[20].link_latency[back] == 3_000_000
    assert at[50] is diamond
    hit = [dst for dst in (2, 3) if there in diamond.paths(np.array([0], np.int32), np.array([dst], np.int32))[1]]
    for dst in hit:
        for moment, avoided in ((35, False), (37, True)):
            ids = at[moment].paths(np.array([0], np.int32), np.array([dst], np.int32))[1]
            assert (there not in ids) == avoided
