"""``distsim collective -b -e -f``: nccl-tests' table, shards, pictures, comparison with measurements, what is refused."""

from __future__ import annotations

import json
import math

import pytest

from distsim.cli.main import main
from distsim.nccl.measured import read_rows

SWITCH = ["--topo", "switch:hosts=4,bandwidth=10GB/s,latency=1us", "--ranks", "4"]

HEAD = """\
# Collective test starting: all_reduce_perf
#
# Using devices
#  Rank  0 Group  0 Pid   1001 on     node-a device  0 [0000:10:00] NVIDIA H100
#  Rank  1 Group  0 Pid   1002 on     node-a device  1 [0000:20:00] NVIDIA H100
#  Rank  2 Group  0 Pid   1003 on     node-a device  2 [0000:30:00] NVIDIA H100
#  Rank  3 Group  0 Pid   1004 on     node-a device  3 [0000:40:00] NVIDIA H100
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""


def ring_us(size: int, steps: int) -> float:
    """A ring over one switch: steps of size / 4 over two hops of 1 us at 10 GB/s."""
    return steps * (2 + size / 4 / 10_000)


def swept(capsys, *words: str) -> list[dict]:
    """Rows of the document."""
    assert main(["collective", *words, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["format"] == "distsim-collective-sweep"
    return made["rows"]


@pytest.fixture
def measured(tmp_path):
    """nccl-tests' text: 4 KiB and 1 MiB, each twice what a ring takes."""
    lines = [
        f"{size:12d} {size // 4:13d} {'float':>9} {'sum':>7} {-1:7d} {2 * ring_us(size, 6):8.2f} 1.00 1.00 0 1.00 1.00 1.00 0"
        for size in (4096, 1 << 20)
    ]
    path = tmp_path / "log.txt"
    path.write_text(HEAD + "\n".join(lines) + "\n")
    return str(path)


def test_the_table_has_the_shape_of_nccl_tests(capsys, tmp_path):
    assert main(["collective", "all_reduce", "-b", "1KiB", "-e", "16KiB", "-f", "4", "--algorithm", "ring", *SWITCH]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("all_reduce on 4 ranks: busbw up to ")
    titles = next(line for line in lines if line.split()[:2] == ["#", "size"])
    assert titles.split()[1:10] == ["size", "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong"]
    rows = [line.split() for line in lines if line.startswith("  ")]
    assert [row[:5] for row in rows] == [
        ["1024", "256", "float", "sum", "-1"], ["4096", "1024", "float", "sum", "-1"], ["16384", "4096", "float", "sum", "-1"],
    ]  # fmt: skip
    for size, _, _, _, _, time, algbw, busbw, wrong, algorithm in rows:
        assert float(time) == pytest.approx(ring_us(int(size), 6), rel=0.01)
        assert float(algbw) == pytest.approx(int(size) / float(time) / 1e3, abs=0.01)
        assert float(busbw) == pytest.approx(1.5 * int(size) / float(time) / 1e3, abs=0.01)
        assert (wrong, algorithm) == ("0", "ring")
    assert lines[-1].startswith("# Avg bus bandwidth    : ")
    # what nccl-tests' readers read, they read here: the rows without the last word
    text = "\n".join([*HEAD.splitlines()[:8], titles.rpartition(" ")[0], *(" ".join(row[:-1]) for row in rows)])
    path = tmp_path / "ours.txt"
    path.write_text(text)
    assert [(one.size, one.ranks) for one in read_rows(path)] == [(1024, 4), (4096, 4), (16384, 4)]


def test_sizes_of_all_gather_are_of_the_whole_buffer(capsys):
    rows = swept(capsys, "all_gather", "-b", "4000", "-e", "64000", "-f", "4", "--algorithm", "ring", *SWITCH)
    assert [(row["size_bytes"], row["input_bytes"]) for row in rows] == [(4000, 1000), (16000, 4000), (64000, 16000)]
    for row in rows:
        assert row["time_us"] == pytest.approx(ring_us(row["size_bytes"], 3), rel=0.01)
        assert row["algbw"] == pytest.approx(row["size_bytes"] / row["time_us"] / 1e3)
        assert row["busbw"] == pytest.approx(0.75 * row["algbw"])


def test_sizes_that_come_to_the_same_shard_are_one_row(capsys):
    rows = swept(capsys, "all_gather", "-b", "1", "-e", "16", *SWITCH)
    assert [row["size_bytes"] for row in rows] == [4, 8, 16]


@pytest.mark.parametrize(("operation", "root"), [("broadcast", "2"), ("reduce", "2"), ("all_to_all", "-1")])
def test_the_root_is_said_where_there_is_one(capsys, operation, root):
    assert main(["collective", operation, "-b", "1KiB", "-e", "1KiB", "--root", "2", *SWITCH]) == 0
    row = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  "))
    assert row[4] == root


def test_a_level_without_contention_says_where_it_is_too_fast(capsys):
    words = ["collective", "all_to_all", "-b", "1MiB", "-e", "1MiB", *SWITCH]
    assert main([*words, "--network", "analytic"]) == 0
    assert "# warning: level analytic knows no contention" in capsys.readouterr().out
    assert main([*words, "--network", "fluid"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_a_plot_is_drawn_the_same_twice(capsys, tmp_path, measured):
    drawn = []
    for name in ("a.svg", "b.svg"):
        assert main(["collective", "all_reduce", "--compare", measured, "--plot", str(tmp_path / name), *SWITCH]) == 0
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0] == drawn[1]
    assert b"<svg" in drawn[0]
    assert not list(tmp_path.glob("*.part"))
    capsys.readouterr()


def test_nccl_tests_text_beside_ours(capsys, measured):
    words = ["all_reduce", "--algorithm", "ring", "--compare", measured, *SWITCH]
    rows = swept(capsys, *words)
    assert [row["size_bytes"] for row in rows] == [4096, 1 << 20]  # what was measured, where no factor is given
    assert [row["error"] for row in rows] == pytest.approx([-0.5, -0.5], abs=0.005)
    assert main(["collective", *words]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    mape = float(first.partition("MAPE ")[2].split()[0])
    assert mape == pytest.approx(50, abs=0.5)
    assert "against 2 measured sizes" in first
    assert any(line.split()[-3:-1] == ["measured", "error"] for line in lines)
    assert len(swept(capsys, *words, "-b", "8KiB")) == 1
    wide = swept(capsys, *words, "-f", "2", "-b", "1KiB", "-e", "4KiB")
    assert [("error" in row) for row in wide] == [False, False, True]


def test_csv_beside_ours_takes_the_median_and_only_this_collective(capsys, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(
        "size_bytes,latency_us,collective,gpus\n"
        "8589934592,10,all_reduce,4\n8589934592,30,all_reduce,4\n8589934592,20,all_reduce,4\n"
        "4096,99,all_reduce,8\n10007,7,all_gather,4\n"
    )
    # beyond the default end of 1 GiB: the file says which sizes there are
    rows = swept(capsys, "all_reduce", "--compare", str(path), "-b", "2GiB", *SWITCH, "--network", "analytic")
    assert [(row["size_bytes"], row["measured_us"]) for row in rows] == [(8589934592, 20.0)]
    shard = swept(capsys, "all_gather", "--compare", str(path), *SWITCH)
    # a shard is a whole number of bytes; the measured size is the one asked for
    assert [(row["size_bytes"], row["input_bytes"], row["measured_us"]) for row in shard] == [(10004, 2501, 7.0)]
    assert math.isfinite(shard[0]["error"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-b", "1MiB", "-e", "1KiB"], "0 < begin <= end"),
        (["-b", "0"], "0 < begin <= end"),
        (["-b", "lots"], "is not a size"),
        (["-f", "1"], "leads nowhere"),
        (["-f", "nan"], "leads nowhere"),
        (["-f", "1.0001"], "more than 1000 sizes"),
        (["--plot", "busbw.doc"], "cannot draw"),
        (["--plot", "no/such/folder/a.svg"], "there is no folder"),
        (["--compare", "no_such_file"], "cannot read"),
        (["-e", "1KiB", "--size", "1MiB"], "--size: has no effect on a sweep"),
    ],
)
def test_bad_ranges_are_refused(capsys, words, said):
    assert main(["collective", "all_reduce", *words, *SWITCH]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


def test_what_has_no_sizes_is_refused(capsys, measured):
    assert main(["collective", "barrier", "-e", "1KiB", *SWITCH]) == 2
    assert "moves no data" in capsys.readouterr().err
    assert main(["collective", "all_gather", "-b", "1", "-e", "3", *SWITCH]) == 2
    assert "no size gives each of 4 ranks a byte" in capsys.readouterr().err
    assert main(["collective", "all_reduce", "--compare", measured, "-b", "1GiB", *SWITCH]) == 2
    assert "Expected 4 KiB to 1 MiB" in capsys.readouterr().err
    assert main(["collective", "all_gather", "--compare", measured, *SWITCH]) == 2
    assert "Expected one of all_reduce on 4" in capsys.readouterr().err
    assert main(["collective", "all_reduce", "--compare", measured, "--topo", "switch", "--ranks", "8"]) == 2
    assert "holds no all_reduce on 8 ranks" in capsys.readouterr().err


def test_a_barrier_moves_nothing(capsys):
    assert main(["collective", "barrier", "--json", *SWITCH]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["bytes"], made["algbw"]) == (0, 0)
    assert made["time_ps"] > 0
    assert main(["collective", "barrier", "--size", "1MiB", *SWITCH]) == 2
    assert "moves no data" in capsys.readouterr().err
