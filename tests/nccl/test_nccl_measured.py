"""Readers of measurements: nccl-tests' text in its versions, CSV, and what is neither."""

from __future__ import annotations

import gzip

import pytest

from distsim.cli.main import main
from distsim.errors import ConfigError
from distsim.nccl.measured import operation_name, read_measured, read_rows

#: as nccl-tests 2.13 and later prints it (two hosts with two GPUs each)
NEW = """\
# Collective test starting: all_reduce_perf
# nThread 1 nGpus 1 minBytes 1024 maxBytes 4096 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0
#
# Using devices
#  Rank  0 Group  0 Pid   1001 on     node-a device  0 [0000:10:00] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   1002 on     node-a device  1 [0000:20:00] NVIDIA H100 80GB HBM3
#  Rank  2 Group  0 Pid   1003 on     node-b device  0 [0000:10:00] NVIDIA H100 80GB HBM3
#  Rank  3 Group  0 Pid   1004 on     node-b device  1 [0000:20:00] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
        1024           256     float     sum      -1    30.25    0.03    0.05      0    29.01    0.04    0.05      0
        2048           512     float     sum      -1    31.50    0.07    0.10    N/A    30.77    0.07    0.10    N/A
        4096          1024     float     sum      -1    33.00    0.12    0.19      0    32.10    0.13    0.19      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 0.11
#
"""
#: as nccl-tests 2.0 to 2.9 did: no root, and "error" in place of "#wrong"
OLD = """\
# nThread 1 nGpus 8 minBytes 8 maxBytes 16 step: 2(factor) warmup iters: 5 iters: 20 validation: 1
#
# Using devices
#   Rank  0 Pid  77 on  host7 device  0 [0x07] A100-SXM4-40GB
#   Rank  1 Pid  77 on  host7 device  1 [0x0f] A100-SXM4-40GB
#
#                                                     out-of-place                       in-place
#       size         count    type   redop     time   algbw   busbw  error     time   algbw   busbw  error
#        (B)    (elements)                     (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
           8             2   float     sum    9.500    0.00    0.00  2e-07     9.41    0.00    0.00  1e-07
          16             4   float     sum    1e+01    0.00    0.00  2e-07     9.41    0.00    0.00  1e-07
"""


def test_a_new_text(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(NEW)
    rows = read_rows(path)
    assert [(one.size, one.time_us) for one in rows] == [(1024, 30.25), (2048, 31.5), (4096, 33.0)]
    first = rows[0]
    assert (first.operation, first.ranks, first.nodes, first.gpu) == ("all_reduce", 4, 2, "NVIDIA H100 80GB HBM3")
    assert (first.dtype, first.line) == ("float", 13)


def test_an_old_text_takes_the_operation_from_the_file_name(tmp_path):
    path = tmp_path / "reduce_scatter.txt"
    path.write_text(OLD)
    rows = read_rows(path)
    assert [(one.operation, one.size, one.time_us, one.ranks, one.nodes) for one in rows] == [
        ("reduce_scatter", 8, 9.5, 2, 1), ("reduce_scatter", 16, 10.0, 2, 1),
    ]  # fmt: skip


def test_several_runs_in_one_file(tmp_path):
    path = tmp_path / "log.txt.gz"
    second = NEW.replace("all_reduce_perf", "alltoall_perf").replace("node-b", "node-a")
    path.write_bytes(gzip.compress((NEW + second).encode()))
    rows = read_rows(path)
    assert [(one.operation, one.ranks, one.nodes) for one in rows] == [("all_reduce", 4, 2)] * 3 + [("all_to_all", 4, 1)] * 3


def test_a_table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(
        "collective,gpus,size_bytes,latency_us,use,impl\nalltoall,8,1024,10.5,yes,NCCL\nalltoall,8,1024,99,no,NCCL\n"
        "alltoall,8,1024,11.5,yes,NCCL\nalltoall,8,1024,1,yes,vLLM\nall_gather,8,2048,12,yes,NCCL\n"
    )
    assert len(read_rows(path)) == 4
    assert read_measured(path, "all_to_all", 8) == {1024: 11.0}
    with pytest.raises(ConfigError, match="holds no all_reduce on 8 ranks"):
        read_measured(path, "all_reduce", 8)


def test_the_reference_is_read(nccl_reference):
    rows = read_rows(nccl_reference / "nccl_measured.csv.gz")
    assert len(rows) > 29000
    assert len(read_measured(nccl_reference / "nccl_measured.csv.gz", "all_reduce", 8)) > 20


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("alltoall", "all_to_all"), ("AllReduce", "all_reduce"), ("sendrecv_perf", "send_recv"), ("hypercube", ""), ("", "")],
)
def test_operations(spelling, name):
    assert operation_name(spelling) == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no measurements"),
        ("hello\nworld\n", "holds no measurements"),
        ("a,b\n1,2\n", "has no column size_bytes"),
        ("size,time,operation,ranks\nmany,1,all_reduce,2\n", "size 'many'"),
        ("size,time,operation,ranks\n1024,0,all_reduce,2\n", "time '0' is not a positive number"),
        ("size,time,operation,ranks\n1024,nan,all_reduce,2\n", "time 'nan'"),
        ("size,time,operation,ranks\n1024,1,all_reduce\n", "ranks ''"),
        (NEW.replace("30.25 ", ""), "has 12 columns"),
        (NEW.replace("     sum      -1    30.25    0.03    0.05      0    29.01    0.04    0.05      0", ""), "has 3 columns"),
        (NEW.replace("[0000:20:00] NVIDIA H100 80GB HBM3", "[0000:20:00] NVIDIA A100"), "several kinds of GPU"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "data.txt"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_rows(path)


def test_a_missing_and_a_damaged_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_rows(tmp_path / "none.txt")
    (tmp_path / "bad.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(ConfigError, match="cannot read"):
        read_rows(tmp_path / "bad.csv.gz")


def test_a_damaged_gzip_file_is_said_to_be_one(tmp_path, capsys):
    """Every byte of the stream in turn: deflate's own errors are of another kind than those of the wrapper."""
    whole = gzip.compress(b"size_bytes,time_us\n" + b"".join(b"%d,%d\n" % (n, 7 * n) for n in range(50)))
    path = tmp_path / "measured.csv.gz"
    for at in range(10, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert main(["calibrate", "nccl", "--data", str(path)]) == 2
    assert "measured.csv.gz" in capsys.readouterr().err
