"""Tables of measured kernels: exact hits, interpolation inside the range, refusal outside, bad files by column and row."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.cost.kernel import Answer, attention, gemm, grouped_gemm, memory
from distsim.cost.kernels.aiconfigurator import Aiconfigurator, data_folder
from distsim.cost.kernels.table import FAR, NO_MODEL, NO_ROWS, OUTSIDE, Table
from distsim.cost.kernels.table_file import Measured, read
from distsim.errors import ConfigError
from distsim.hardware.gpu import gpu

H100, A100 = gpu("h100_sxm"), gpu("a100_sxm")


class Linear:
    """A model that takes 1 ns per million operations, and 1 ns per byte without any."""

    def answer(self, kernel, gpu):
        return Answer((kernel.flops or kernel.bytes) * 1e-15, "linear", 0.3)


def grid(factor=2.0, sizes=(1024, 2048, 4096)):
    """GEMMs that take ``factor`` times what Linear says."""
    return [
        Measured("h100_sxm", "gemm", "bf16", (m, n, k), factor * 2e-15 * m * n * k) for m in sizes for n in sizes for k in sizes
    ]


def test_exact_hit_is_the_measurement_and_repeats_their_median():
    shape = (4, 5, 6)
    rows = [Measured("h100_sxm", "gemm", "bf16", shape, time) for time in (3.0, 1.0, 2.0)]
    table = Table.of([*rows, Measured("", "memory", "bf16", (100,), 5.0)], over=Linear())
    assert table.answer(gemm(*shape, "bf16"), H100)[:2] == (2.0, "table")
    assert table.answer(memory(100), A100)[:2] == (5.0, "table")
    assert len(table) == 2


def test_between_rows_the_model_is_corrected_by_its_neighbours():
    found = Table.of(grid(2.0), over=Linear()).answer(gemm(1500, 3000, 2000, "bf16"), H100)
    assert found.source == "interpolated"
    assert found.seconds == pytest.approx(2.0 * 2e-15 * 1500 * 3000 * 2000)
    assert found.error >= 0.05


@given(st.integers(1024, 4096), st.integers(1024, 4096), st.integers(1024, 4096), st.integers(0, 2**32))
def test_law_a_ratio_lies_among_the_measured_ones(m, n, k, seed):
    import random

    generator = random.Random(seed)
    rows = [row._replace(seconds=row.seconds * generator.uniform(0.5, 3.0)) for row in grid(1.0)]
    ratios = [row.seconds / (2e-15 * math.prod(row.shape)) for row in rows]
    kernel = gemm(m, n, k, "bf16")
    found = Table.of(rows, over=Linear()).answer(kernel, H100)
    assert min(ratios) * 0.999 <= found.seconds / (kernel.flops * 1e-15) <= max(ratios) * 1.001


def test_four_neighbours_weigh_by_distance():
    near = Measured("h100_sxm", "gemm", "bf16", (1024, 1024, 1024), 4 * 2e-15 * 1024**3)
    far = [Measured("h100_sxm", "gemm", "bf16", (m, 2048, 2048), 2e-15 * m * 2048**2) for m in (2048, 1900, 1800)]
    found = Table.of([near, *far], over=Linear()).answer(gemm(1025, 1025, 1025, "bf16"), H100)
    assert 2.5 < found.seconds / (2e-15 * 1025**3) < 4.0


def test_outside_the_range_it_refuses_and_counts():
    table = Table.of(grid(), over=Linear())
    for _ in range(3):
        assert table.answer(gemm(512, 2048, 2048, "bf16"), H100) is None
    assert table.refused == {OUTSIDE: 3}
    assert table.answer(gemm(2048, 2048, 2048, "fp8"), H100) is None
    assert table.answer(gemm(2048, 2048, 2048, "bf16"), A100) is None
    assert table.refused[NO_ROWS] == 2


def test_a_hole_in_the_range_is_outside_too():
    corners = [row for row in grid(sizes=(16, 16384)) if len(set(row.shape)) == 1]
    table = Table.of(corners, over=Linear())
    assert table.answer(gemm(500, 500, 500, "bf16"), H100) is None
    assert table.refused == {FAR: 1}


def test_extrapolation_is_asked_for_and_says_so():
    found = Table.of(grid(), over=Linear(), extrapolate=True).answer(gemm(512, 2048, 2048, "bf16"), H100)
    assert found.source == "extrapolated"
    assert found.seconds == pytest.approx(2.0 * 2e-15 * 512 * 2048 * 2048)
    assert found.error >= 0.3


def test_without_a_model_only_exact_hits():
    table = Table.of(grid())
    assert table.answer(gemm(1024, 1024, 1024, "bf16"), H100).source == "table"
    assert table.answer(gemm(1500, 1024, 1024, "bf16"), H100) is None
    assert table.refused == {NO_MODEL: 1}


def test_head_dimension_and_mask_choose_the_kernel():
    rows = [
        Measured("h100_sxm", "attention", "bf16", (1, q, q, 32, 8, 128, 128, 1, 0), 1e-9 * q * q) for q in (1024, 2048, 4096)
    ]
    table = Table.of(rows, over=Linear())
    assert table.answer(attention(1, 3000, 3000, 32, 8, 128, 128, "bf16"), H100).source == "interpolated"
    assert table.answer(attention(1, 3000, 3000, 32, 8, 64, 64, "bf16"), H100) is None
    assert table.answer(attention(1, 3000, 3000, 32, 8, 128, 128, "bf16", causal=False), H100) is None
    assert table.refused == {NO_ROWS: 2}


def write(path, text):
    path.write_text(text)
    return path


def test_csv_of_gemms(tmp_path):
    path = write(tmp_path / "t.csv", "system,dtype,m,n,k,latency_us\nH100 SXM,bfloat16,1,2,3,4.5\n\nh100,fp8,1,2,3,0.5\n")
    assert read(path) == [
        Measured("h100_sxm", "gemm", "bf16", (1, 2, 3), pytest.approx(4.5e-6)),
        Measured("h100_sxm", "gemm", "fp8", (1, 2, 3), pytest.approx(0.5e-6)),
    ]
    assert Table(str(path)).answer(gemm(1, 2, 3, "fp8"), H100).seconds == pytest.approx(0.5e-6)


def test_columns_tell_the_kind(tmp_path):
    head = "dtype,batch,q,past,heads,kv_heads,head_dim,latency_ms\n"
    rows = read(write(tmp_path / "a.csv", head + "bf16,2,64,0,8,4,128,1\nbf16,2,1,99,8,4,128,1\nbf16,2,64,36,8,4,128,1\n"))
    assert [(row.kind, row.shape[:3], row.shape[7]) for row in rows] == [
        ("attention", (2, 64, 64), 1), ("decode_attention", (2, 1, 100), 0), ("attention", (2, 64, 100), 1),
    ]  # fmt: skip
    assert read(write(tmp_path / "b.csv", "dtype,bytes,seconds\nbf16,64,1\n"))[0][1:4] == ("memory", "bf16", (64,))
    grouped = read(write(tmp_path / "c.csv", "dtype,groups,m,n,k,latency_us\nbf16,4,1,2,3,1\n"))
    table = Table.of(grouped)
    assert table.answer(grouped_gemm(4, 1, 2, 3, "bf16"), A100).seconds == pytest.approx(1e-6)
    mixed = read(write(tmp_path / "d.csv", "kind,dtype,m,n,k,latency_us\ngemm,bf16,1,2,3,1\n"))
    assert mixed[0].kind == "gemm"


def test_parquet_is_read_like_csv(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"system": ["l40s"], "dtype": ["fp16"], "m": [1], "n": [2], "k": [3], "latency_us": [7.0]}), path)
    assert read(path) == [Measured("l40s", "gemm", "fp16", (1, 2, 3), pytest.approx(7e-6))]


HEAD = "system,dtype,m,n,k,latency_us\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty"]),
        ("a,b\n1,2\n", ["no column of times", "latency_us"]),
        ("dtype,latency_us\nbf16,1\n", ["holds no kernels"]),
        ("m,n,k,latency_us\n1,2,3,4\n", ["no column dtype"]),
        (HEAD + "h100,bf16,1,2,3,4\nh100,bf16,1,2,x,4\n", ["row 2, column k", "'x'"]),
        (HEAD + "h100,bf16,1,2,0,4\n", ["row 1, column k", "at least 1"]),
        (HEAD + "h100,bf16,1,2,2.5,4\n", ["row 1, column k", "2.5"]),
        (HEAD + "h100,bf16,1,2,3,-4\n", ["row 1, column latency_us", "positive"]),
        (HEAD + "h100,bf16,1,2,3,nan\n", ["row 1, column latency_us"]),
        (HEAD + "h100,bf17,1,2,3,4\n", ["row 1, column dtype", "bf17", "bf16"]),
        (HEAD + "h10,bf16,1,2,3,4\n", ["row 1, column system", "h10"]),
        (HEAD + "h100,bf16,1,2,3\n", ["row 1", "5 cells in 6 columns"]),
        ("kind,dtype,m,n,k,latency_us\ngem,bf16,1,2,3,4\n", ["row 1, column kind", "gemm"]),
        ("dtype,batch,heads,head_dim,kv_heads,latency_us\nbf16,1,1,1,1,1\n", ["no column q or seq"]),
        ("dtype,batch,q,heads,head_dim,kv_heads,latency_us\nbf16,1,1,3,1,2,1\n", ["row 1, column kv_heads", "evenly"]),
        ("dtype,batch,q,kv,heads,head_dim,kv_heads,latency_us\nbf16,1,5,4,3,1,1,1\n", ["row 1, column kv", "5 new tokens"]),
        (HEAD, ["no rows"]),
    ],
)  # fmt: skip
def test_bad_files_name_file_column_and_row(tmp_path, text, parts):
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(ConfigError) as caught:
        Table(str(path))
    for part in parts if text == HEAD else ["bad.csv", *parts]:
        assert part in str(caught.value)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.csv"):
        read(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match=r"bad\.parquet.*Parquet"):
        read(write(tmp_path / "bad.parquet", "no parquet"))
    (tmp_path / "bad.csv.gz").write_bytes(b"\x1f\x8bbroken")
    with pytest.raises(ConfigError, match=r"bad\.csv\.gz"):
        read(tmp_path / "bad.csv.gz")


# --- aiconfigurator ---------------------------------------------------------------------------------------------------------


def put(folder, system, family, backend, version, operation, **columns):
    path = folder / system / family / backend / version
    path.mkdir(parents=True)
    pq.write_table(pa.table(columns), path / f"{operation}_perf.parquet")


@pytest.fixture
def package(tmp_path):
    """A folder in the layout of aiconfigurator-core."""
    for version, latency in (("1.3.0rc5", 9.0), ("1.3.0rc20", 1.0)):
        put(
            tmp_path, "h100_sxm", "gemm", "trtllm", version, "gemm",
            gemm_dtype=["bfloat16", "fp8_block"], m=[64, 64], n=[128, 128], k=[256, 256], latency=[latency, 5.0],
        )  # fmt: skip
    put(
        tmp_path, "h100_sxm", "gemm", "sglang", "0.5", "gemm",
        gemm_dtype=["bfloat16"], m=[64], n=[128], k=[256], latency=[3.0],
    )  # fmt: skip
    put(
        tmp_path, "h100_sxm", "attention", "trtllm", "1.3.0rc20", "generation_attention",
        batch_size=[2], isl=[1], num_heads=[8], num_key_value_heads=[0], head_dim=[128], kv_cache_dtype=["fp8"], step=[63],
        latency=[0.25],
    )  # fmt: skip
    put(
        tmp_path, "h100_sxm", "mla", "trtllm", "1.3.0rc20", "generation_mla",
        batch_size=[2], isl=[1], num_heads=[16], kv_cache_dtype=["bfloat16"], step=[63], latency=[0.5],
    )  # fmt: skip
    put(
        tmp_path, "h100_sxm", "attention", "sglang", "0.5", "context_attention",
        batch_size=[2, 2], isl=[64, 64], num_heads=[8, 8], num_key_value_heads=[4, 4], head_dim=[128, 128],
        attn_dtype=["bfloat16", "bfloat16"], kv_cache_dtype=["bfloat16", "fp8"], latency=[0.75, 0.7],
    )  # fmt: skip
    (tmp_path / "no_such_gpu").mkdir()
    return tmp_path


def test_aiconfigurator_files_are_tables_in_ms(package):
    provider = Aiconfigurator(folder=str(package))
    assert provider.answer(gemm(64, 128, 256, "bf16"), H100)[:2] == (1e-3, "table")
    made = attention(2, 1, 64, 8, 8, 128, 128, "fp8", causal=False)._replace(kind="decode_attention")
    assert provider.answer(made, H100).seconds == 0.25e-3
    latent = attention(2, 1, 64, 16, 1, 576, 512, "bf16", causal=False)._replace(kind="decode_attention")
    assert provider.answer(latent, H100).seconds == 0.5e-3
    assert provider.answer(attention(2, 64, 64, 8, 4, 128, 128, "bf16"), H100).seconds == 0.75e-3
    assert provider.skipped == {"fp8_block": 1, "mixed data types": 1}
    assert provider.answer(gemm(64, 128, 256, "bf16"), A100) is None
    assert provider.refused == {"aiconfigurator measured no gemm on a100_sxm": 1}


def test_aiconfigurator_backend_and_version_choose(package):
    assert Aiconfigurator(folder=str(package), backend="sglang").answer(gemm(64, 128, 256, "bf16"), H100).seconds == 3e-3
    old = Aiconfigurator(folder=str(package), version="1.3.0rc5")
    assert old.answer(gemm(64, 128, 256, "bf16"), H100).seconds == pytest.approx(9e-3)
    with pytest.raises(ConfigError, match=r"vllm.*\n.*sglang, trtllm"):
        Aiconfigurator(folder=str(package), backend="vllm")
    with pytest.raises(ConfigError, match=r"7\.7"):
        Aiconfigurator(folder=str(package), version="7.7")


def test_aiconfigurator_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr("distsim.cost.kernels.aiconfigurator.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'distsim\[aiconfigurator\]'"):
        data_folder()
    with pytest.raises(ConfigError, match="holds no measurements"):
        Aiconfigurator(folder=str(tmp_path))


def test_aiconfigurator_file_without_its_columns_is_named(tmp_path):
    put(tmp_path, "h100_sxm", "gemm", "trtllm", "1.0", "gemm", gemm_dtype=["bfloat16"], m=[1], n=[1], latency=[1.0])
    with pytest.raises(ConfigError, match=r"gemm_perf\.parquet: has no column k"):
        Aiconfigurator(folder=str(tmp_path)).answer(gemm(1, 1, 1, "bf16"), H100)
