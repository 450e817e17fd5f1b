"""What keeps large captures small and quick: words held once, facts found once, whatever their number."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.trace.kineto import facts
from distsim.trace.kineto.facts import facts_of_args
from distsim.trace.kineto.reading import read_capture
from distsim.trace.kineto.text import Events

TOLD = {
    "Collective name": "allreduce", "In msg nelems": 1024, "Out msg nelems": 1024, "dtype": "BFloat16", "Group size": 4,
    "Process Group Name": "0", "Process Group Ranks": "[0, 1, 2, 3]",
}  # fmt: skip


def capture(count: int, name: str = "allreduce") -> bytes:
    events = []
    for k in range(count):
        ids = {"correlation": k + 1, "External id": k + 1}
        common = {"ph": "X", "pid": 1, "ts": 100 * k, "dur": 5}
        events.append({**common, "cat": "cuda_runtime", "name": "cudaLaunchKernel", "tid": 1, "args": ids})
        events.append({**common, "cat": "cpu_op", "name": "record_param_comms", "tid": 1, "args": {**ids, **TOLD, "Seq": k}})
        told = {**ids, **TOLD, "Seq": k, "Collective name": name, "device": 0, "stream": 7}
        events.append({**common, "cat": "kernel", "name": "ncclDevKernel_AllReduce", "ts": 100 * k + 10, "args": told})
    return json.dumps({"traceEvents": events}, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", ["allreduce", "allréduce"], ids=["plain ASCII", "other letters"])
def test_words_of_many_operations_are_in_memory_once(name):
    read = read_capture(capture(200, name))
    kept = [*read.ops.args, *read.kernels.args.values()]
    assert len(kept) == 400
    assert {words["Collective name"] for words in kept} == {"allreduce", name}
    texts = [text for words in kept for pair in words.items() for text in pair if isinstance(text, str)]
    assert len(texts) > 4000
    assert len({id(text) for text in texts}) == len(set(texts))


def test_escaped_letters_of_a_plain_file_stay_as_they_are():
    data = capture(1).replace(b'"BFloat16"', b'"caf\\u00e9"')
    assert data.isascii()
    read = read_capture(data)
    assert read.ops.args[0]["dtype"] == "café"


def test_facts_of_operations_of_one_kind_are_found_once():
    facts._facts_of.cache_clear()
    found = [facts_of_args({**TOLD, "Seq": k, "correlation": k}) for k in range(500)]
    assert facts._facts_of.cache_info().misses == 1
    assert [one["sequence"] for one in found] == [str(k) for k in range(500)]
    found[0]["operation"] = "changed by its owner"
    assert found[1]["operation"] == facts_of_args(TOLD)["operation"] == "allreduce"


@given(
    st.dictionaries(
        st.sampled_from(sorted(facts._WORDS)),
        st.one_of(st.none(), st.integers(-2, 9), st.booleans(), st.floats(-1, 3), st.text("[0123, ]", max_size=8),
                  st.lists(st.integers(0, 5), max_size=3), st.sampled_from(["send", "Float", "allreduce"])),
    )
)  # fmt: skip
def test_facts_do_not_depend_on_what_was_asked_before(args):
    def fresh():
        return facts._facts_of.__wrapped__(tuple(map(args.get, facts._WORDS)), ())

    first = facts_of_args(args)
    assert repr(first) == repr(facts_of_args(args)) == repr(fresh())


def test_an_event_is_decoded_once(monkeypatch):
    events = Events(capture(50), "some")
    decoded = []
    scan = events._scan
    monkeypatch.setattr(events, "_scan", lambda text, at: decoded.append(at) or scan(text, at))
    assert len(list(events)) == 150
    assert len(decoded) == len(set(decoded)) <= 150 + 2


def test_interning_is_what_shares():
    kept = Events(capture(1), "some").kept({"dtype": "".join(["BF", "loat16"])})
    assert kept["dtype"] is sys.intern("BFloat16")
