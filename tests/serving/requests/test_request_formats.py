"""Files of requests: every format, every way to be wrong."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError, DistsimError
from distsim.registry import names
from distsim.serving.requests.read import requests
from distsim.serving.requests.table import requests_of
from distsim.serving.requests.write import write
from distsim.units import PS_PER_MS, PS_PER_S

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:04.0781490,110,27
"""
MOONCAKE = [
    {"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [0, 1]},
    {"timestamp": 3000, "input_length": 1100, "output_length": 6, "hash_ids": [0, 1, 2]},
]
VIDUR = """id,arrived_at,num_prefill_tokens,num_decode_tokens,replica
0,0.5100301436374005,2927,478,0
1,0.5226945631587699,3463,317,0
"""
VLLM = [
    {"input_toks": 40, "output_toks": 3, "arrival_time_ns": 46926808, "input_tok_ids": list(range(40))},
    {"input_toks": 33, "output_toks": 4, "arrival_time_ns": 46926809, "input_tok_ids": [*range(16), *range(100, 117)]},
    {"input_toks": 32, "output_toks": 4, "arrival_time_ns": 46926809, "input_tok_ids": [*range(99, 115), *range(100, 116)]},
]
PLAIN = "arrival,prompt,output\n0,10,1\n0.5,20,2\n2.25,30,3\n"


@pytest.fixture
def file(tmp_path):
    """A function that writes text, bytes or rows, and gives the path."""

    def put(content, name="requests.csv"):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return put


def refused(path, *words, **options):
    with pytest.raises(DistsimError) as caught:
        requests(path, **options)
    for word in (*words, path.split(":file=")[-1]):
        assert word in str(caught.value), str(caught.value)


def test_the_formats():
    assert names("requests") == ["azure", "mooncake", "plain", "vidur", "vllm"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_azure(file, ending, packed):
    data = AZURE.rstrip().replace("\n", ending).encode()
    found = requests(file(gzip.compress(data) if packed else data, "conv.csv.gz" if packed else "conv.csv"))
    assert found.arrival.tolist() == [0, 52_000_000_000, 98_189_000_000]
    assert found.prompt.tolist() == [4808, 3180, 110]
    assert found.output.tolist() == [10, 8, 27]
    assert not found.warnings


def test_azure_of_2024_and_a_byte_order_mark(file):
    text = "\ufeff" + AZURE.replace("00,", "00+00:00,", 1).replace(".9799600+", ".979960+")
    assert requests(file(text)).arrival.tolist()[1] == 52_000_000_000


def test_mooncake_numbers_whole_blocks_only(file):
    found = requests(file(MOONCAKE, "trace.jsonl"))
    assert found.arrival.tolist() == [0, 3 * PS_PER_S]
    assert found.hash_block == 512
    assert {row: list(one) for row, one in found.hashes.items()} == {0: [0, 1], 1: [0, 1]}


def test_vidur(file):
    found = requests(file(VIDUR))
    assert found.arrival.tolist() == [510030143637, 522694563159]
    assert found.prompt.tolist() == [2927, 3463]


def test_lengths_without_arrivals(file):
    path = file("num_prefill_tokens,num_decode_tokens\n5,1\n6,2\n7,3\n")
    refused(path, "lengths and no arrivals")
    found = requests(path, arrivals="uniform:qps=2", n=2)
    assert found.arrival.tolist() == [PS_PER_S // 2, PS_PER_S]
    assert found.prompt.tolist() == [5, 6]


def test_vllm_chains_blocks(file):
    found = requests(file(VLLM, "run.jsonl"))
    assert found.arrival.tolist() == [46926808000, 46926809000, 46926809000]
    first, second, third = (found.hashes[row] for row in range(3))
    assert (len(first), len(second), len(third)) == (2, 2, 2)
    assert first[0] == second[0]
    # equal tokens (100..115) after others are another block
    assert len({*first, *second, *third}) == 5


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_plain(file, tmp_path, kind):
    columns = {"arrival_ms": [0.5, 1.5, 2.0], "prompt": [10, 20, 30], "output": [1, 2, 3], "tenant": ["a", "b", "a"],
               "session": ["x", "", "x"], "priority": [-1, 0, 5], "deadline": [0.0, 1.5, 0.0]}  # fmt: skip
    if kind == "parquet":
        path = str(tmp_path / "mine.parquet")
        pq.write_table(pa.table(columns), path)
    else:
        rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        text = "\n".join([",".join(columns), *(",".join(map(str, row.values())) for row in rows)])
        path = file(rows if kind == "jsonl" else text, f"mine.{kind}")
    found = requests(path)
    assert found.arrival.tolist() == [PS_PER_MS // 2, 3 * PS_PER_MS // 2, 2 * PS_PER_MS]
    assert (found.names, found.tenant.tolist()) == (("a", "b"), [0, 1, 0])
    assert found.session.tolist()[1] == -1
    assert found.session[0] == found.session[2] >= 0
    assert found.priority.tolist() == [-1, 0, 5]
    assert found.deadline.tolist() == [0, 1.5 * PS_PER_S, 0]
    assert found.after.tolist() == [-1, -1, -1]


def test_ignored_columns_are_told(file):
    assert "ignored columns colour" in requests(file("arrival,prompt,output,colour\n0,1,1,red\n")).warnings[0]


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_written_files_read_back(tmp_path, ending):
    listed = not ending.startswith(".csv")
    table = requests_of(
        np.array([3, 4, 10**17 + 1]), np.array([50, 20, 90]), np.array([1, 2, 3]), tenant=np.array([1, 0, 1], np.int32),
        names=("b", "a"), session=np.array([0, -1, 0]), after=np.array([-1, -1, 0]), think=np.array([0, 0, 7]),
        deadline=np.array([0, 5, 0]), priority=np.array([0, -3, 1], np.int32), hash_block=32,
        hashes={0: [5], 2: [5, 9]} if listed else None,
    )  # fmt: skip
    path = str(tmp_path / f"out{ending}")
    write(table, path)
    found = requests(path)
    for name in ("arrival", "prompt", "output", "session", "priority", "deadline", "after", "think"):
        assert np.array_equal(getattr(found, name), getattr(table, name)), name
    assert [found.names[one] for one in found.tenant] == ["a", "b", "a"]
    if listed:
        assert {row: list(one) for row, one in found.hashes.items()} == {0: [5], 2: [5, 9]}
        assert found.hash_block == 32
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"out{ending}"]


def test_what_cannot_be_written(tmp_path):
    one = np.array([1])
    shared = requests_of(one, one, one, hashes={0: [1]})
    for path, words in (("out.txt", "no known ending"), ("out.csv", "no lists"), ("out.parquet.gz", "no known ending")):
        with pytest.raises(ConfigError, match=words):
            write(shared, str(tmp_path / path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is empty"]), ("\n \n", ["is empty"]), ("arrival,prompt,output\n", ["has one line"]),
        (AZURE.replace("GeneratedTokens", "GeneratedTokns"), ["no column 'GeneratedTokens'", "Nearest: GeneratedTokns"]),
        (AZURE.replace("3180", "31x0"), ["line 3, column ContextTokens", "'31x0'"]),
        (AZURE.replace("3180", ""), ["line 3, column ContextTokens", "empty"]),
        (AZURE.replace("3180", "-3"), ["line 3, column ContextTokens", "at least 0"]),
        (AZURE.replace("3180", "3.5"), ["line 3, column ContextTokens", "whole"]),
        (AZURE.replace("3180", "nan"), ["line 3, column ContextTokens", "finite"]),
        (AZURE.replace("3180", "inf"), ["line 3, column ContextTokens", "finite"]),
        (AZURE.replace("3180", "1e300"), ["line 3, column ContextTokens"]),
        (AZURE.replace("3180,8", "3180"), ["line 3", "has 2 cells"]),
        (AZURE.replace("3180,8", "3180,8,1"), ["line 3", "has 4 cells"]),
        (AZURE.replace("2023-11-16 18:17:04.0319600", "yesterday"), ["line 3, column TIMESTAMP", "'yesterday'"]),
        (AZURE.replace("2023-11-16 18:17:04.0319600", ""), ["line 3, column TIMESTAMP", "is empty"]),
        (AZURE.replace("2023-11-16 18:17:04.0319600", "2023-11-16 18:17:04+02:00"), ["line 3, column TIMESTAMP"]),
        (AZURE.replace("2023-11-16 18:17:04.07", "2024-11-16 18:17:04.07"), ["line 4, column TIMESTAMP", "53 days"]),
        (AZURE.replace("18:17:04.0319600", "18:17:05.0319600"), ["request 2 arrives", "before request 1", "order=sort"]),
        (PLAIN.replace("prompt", "promt"), ["no column 'prompt'", "Nearest: promt"]),
        (PLAIN.replace("arrival", "arival"), ["no column 'arrival'", "Nearest: arival"]),
        (PLAIN.replace("0.5", "-0.5"), ["line 3, column arrival", "0 to 53 days"]),
        (PLAIN.replace("2.25", "1e9"), ["line 4, column arrival", "53 days"]),
        (PLAIN.replace("output", "prompt"), ["two columns 'prompt'"]),
        ("arrival,arrival_ms,prompt,output\n0,0,1,1\n", ["arrival and arrival_ms"]),
        ("arrival,prompt,output,after\n0,1,1,0\n", ["line 2, column after"]),
        ("a,b\n1,2\n", ["no columns of requests: a, b", "azure: TIMESTAMP"]), ("1,2\n3,4\n", ["header line"]),
        (b"\xff\xfe\x00", ["neither text nor Parquet"]), (b"PAR1junk", ["no Parquet"]), (b"\x1f\x8bjunk", ["gzip"]),
        ("[1, 2]\n", ["no object"]), ("{nope\n", ["line 1", "no JSON"]), ('{"prompt": 1}\n\n{}\n', ["line 2", "empty line"]),
        ([{"arrival": 0, "prompt": True, "output": 1}], ["line 1, column prompt"]),
        ([{"arrival": 0, "prompt": 3, "output": 1}, {"arrival": 0, "prompt": "x", "output": 1}],
         ["line 2, column prompt", "'x'"]),
        ([{"arrival": 0, "prompt": 3, "output": 1}, {"arrival": 0, "output": 1}], ["line 2, column prompt", "empty"]),
        ([{"arrival": 0, "prompt": [3], "output": 1}], ["line 1, column prompt"]),
        ([{"arrival": 0, "prompt": 10**30, "output": 1}], ["line 1, column prompt"]),
        ('{"arrival": NaN, "prompt": 3, "output": 1}\n', ["line 1, column arrival"]),
        ([{**MOONCAKE[0], "hash_ids": [0, 1, 2]}], ["line 1, column hash_ids", "3 ids for 1024 tokens"]),
        ([{**MOONCAKE[0], "hash_ids": "abc"}], ["line 1, column hash_ids"]),
        ([{**MOONCAKE[0], "hash_ids": [0, 1.5]}], ["line 1, column hash_ids"]),
        ([{**VLLM[0], "input_toks": 39}], ["line 1, column input_tok_ids", "40 token ids for 39 tokens"]),
        ([{"prompt": 1, "output": 1, "hash_block": 16}, {"prompt": 1, "output": 1, "hash_block": 8}], ["hash_block"]),
    ],
)  # fmt: skip
def test_bad_files_are_refused_in_words(file, content, words):
    refused(file(content), *words)


@example(base=AZURE, at=0.0, cut=0, put=b"\r")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from([AZURE, VIDUR, PLAIN, json.dumps(MOONCAKE[1]) + "\n", json.dumps(VLLM[1]) + "\n"]),
    at=st.floats(0, 1), cut=st.integers(0, 8),
    put=st.one_of(st.binary(max_size=4), st.sampled_from([b",", b"\n", b'"', b"1e9"])),
)  # fmt: skip
def test_a_damaged_file_is_read_or_refused(file, base, at, cut, put):
    data = base.encode()
    place = int(at * len(data))
    try:
        table = requests(file(data[:place] + put + data[place + cut :]))
    except DistsimError:
        return
    assert len(table)
    assert table.prompt.min() >= 1


def test_a_folder_and_an_absent_file(tmp_path, file):
    refused(str(tmp_path), "cannot be read")
    file(PLAIN, "azure_conv.csv")
    refused(str(tmp_path / "azure_con.csv"), "no such file", "azure_conv.csv")


def test_a_forced_format_must_fit(file):
    path = file(PLAIN)
    refused(f"azure:file={path}", "no column 'TIMESTAMP'")
    assert len(requests(f"plain:file={path}")) == 3


def test_rows_out_of_order_are_sorted_on_request(file):
    path = file("arrival,prompt,output,after,think,session\n2,30,3,-1,0,s\n1,10,1,-1,0,t\n4,50,5,0,1,s\n0,20,2,-1,0,u\n")
    found = requests(path, order="sort")
    assert found.arrival.tolist() == [0, PS_PER_S, 2 * PS_PER_S, 4 * PS_PER_S]
    assert found.prompt.tolist() == [20, 10, 30, 50]
    assert found.after.tolist() == [-1, -1, -1, 2]
    assert found.think.tolist() == [0, 0, 0, PS_PER_S]
    assert "2 requests arrive before the one above" in found.warnings[0]


def test_rows_without_tokens_are_counted(file):
    path = file("arrival,prompt,output\n0,10,0\n1,0,1\n2,5,5\n")
    clamped = requests(path)
    assert (clamped.prompt.tolist(), clamped.output.tolist()) == ([10, 1, 5], [1, 1, 5])
    assert "2 requests without prompt or output tokens are given one" in clamped.warnings[0]
    dropped = requests(path, zero="drop")
    assert dropped.prompt.tolist() == [5]
    assert "2 requests" in dropped.warnings[0]
    refused(path, "request 0 has 10 prompt and 0 output tokens", zero="error")
    refused(file("arrival,prompt,output\n0,10,0\n", "none.csv"), "no request with tokens", zero="drop")


def test_the_reference_traces(serving_reference):
    folder = serving_reference / "requests"
    expected = {"code": (8819, 3435948056 * 10**6), "conv": (19366, 3501721937 * 10**6)}
    for kind, (rows, last) in expected.items():
        found = requests(str(folder / f"AzureLLMInferenceTrace2023_{kind}.csv.gz"))
        assert (len(found), int(found.arrival[0]), int(found.arrival[-1])) == (rows, 0, last)
        assert not found.warnings
    found = requests(str(folder / "mooncake_fast25_conversation.jsonl.gz"))
    assert len(found) == len(found.hashes) == 12031
    assert all(
        len(numbers) == tokens // 512 for numbers, tokens in zip(found.hashes.values(), found.prompt.tolist(), strict=True)
    )


def test_the_reference_runs(serving_reference):
    paths = sorted(serving_reference.glob("vidur/*/requests.csv.gz"))
    assert paths
    for path in paths:
        found = requests(str(path))
        assert len(found) == json.loads((path.parent / "result.json").read_text())["n"]
    for path in serving_reference.glob("vllm_measured/sharegpt*.jsonl.gz"):
        found = requests(str(path))
        assert [len(found.hashes[row]) for row in range(len(found))] == (found.prompt // 16).tolist()
