"""distsim calibrate compute and validate compute, end to end, bad inputs included."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsim.cli.main import main
from distsim.cost.kernel import gemm
from distsim.cost.kernels.hybrid import Hybrid
from distsim.cost.kernels.tile_wave import TileWave, evaluate, load_parameters, times, typical
from distsim.errors import ConfigError
from distsim.hardware.gpu import gpu

H100 = gpu("h100_sxm")
HEADER = "m,n,k,latency_us"


def rows(count: int, factor: float = 1.3, seed: int = 0) -> list[str]:
    """An H100 that takes ``factor`` of what ships for it."""
    shapes = (2 ** np.random.default_rng(seed).uniform(3, 13, (count, 3))).astype(np.int64)
    seconds = times(shapes, H100) * factor
    return [f"{m},{n},{k},{1e6 * t:.4f}" for (m, n, k), t in zip(shapes.tolist(), seconds, strict=True)]


@pytest.fixture
def points(tmp_path):
    file = tmp_path / "gemm.csv"
    file.write_text("\n".join([HEADER, *rows(60)]))
    return file


def calibrate(*words: object) -> int:
    return main(["calibrate", "compute", *map(str, words)])


def test_a_calibration_is_written_and_serves(points, tmp_path, capsys):
    target = tmp_path / "h100.json"
    assert calibrate("--data", points, "--gpu", "h100", "-o", target) == 0
    said = capsys.readouterr().out
    assert "left out" in said
    assert str(target) in said
    provider = TileWave(file=target)
    fresh = [tuple(map(int, row.split(",")[:3])) for row in rows(100, seed=9)]
    answers = np.array([provider.answer(gemm(*shape, "bf16"), H100).seconds for shape in fresh])
    truth = times(fresh, H100) * 1.3
    assert np.abs(answers / truth - 1).mean() < 0.05
    assert provider.answer(gemm(*fresh[0], "bf16"), H100).error == load_parameters(target).fits[0].error
    # what the file does not know is served as before
    other = gpu("b200_sxm")
    assert provider.answer(gemm(64, 64, 64, "bf16"), other) == TileWave().answer(gemm(64, 64, 64, "bf16"), other)


def test_json_parquet_gzip_and_csv_agree(points, tmp_path, capsys):
    text = points.read_text()
    (tmp_path / "gemm.csv.gz").write_bytes(gzip.compress(text.encode()))
    columns = list(zip(*(line.split(",") for line in text.splitlines()[1:]), strict=True))
    content = {name: [float(cell) for cell in cells] for name, cells in zip(HEADER.split(","), columns, strict=True)}
    content |= {"system": ["h100_sxm"] * 60, "dtype": ["bfloat16"] * 60}
    pq.write_table(pa.table(content), tmp_path / "gemm.parquet")
    found = []
    for words in (["gemm.csv", "--gpu", "h100"], ["gemm.csv.gz", "--gpu", "h100_sxm"], ["gemm.parquet"]):
        assert calibrate("--data", tmp_path / words[0], *words[1:], "--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["figures"][0]["rows"] == 60
        found.append(document["fits"])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("\n".join([HEADER, *rows(39)]), ["--gpu", "h100"], "39 distinct shapes are too few"),
        ("m,n,latency_us\n1,2,3", ["--gpu", "h100"], "has no column k"),
        ("", ["--gpu", "h100"], "is empty"),
        (HEADER, ["--gpu", "h100"], "holds no rows"),
        ("\n".join([HEADER, *rows(60)]), [], "nothing says which GPU"),
        ("\n".join([HEADER, *rows(60)]), ["--gpu", "h1000"], "unknown GPU 'h1000'"),
        ("\n".join([HEADER, *rows(60)]), ["--gpu", "h100", "--dtype", "bf61"], "unknown data type 'bf61'"),
        ("\n".join([HEADER, *rows(60)]), ["--gpu", "a100", "--dtype", "fp8"], "has no fp8 peak"),
        ("\n".join([HEADER, *rows(60)]), ["--gpu", "h100", "--residual"], "too few to learn"),
        ("\n".join([HEADER, *rows(60)]), ["--gpu", "h100", "--system", "x"], "unknown system 'x'"),
        ("\n".join([HEADER, *rows(60)]), ["--gpu", "h100", "--nics", "8"], "--nics is of calibrate nccl"),
        ("\n".join([HEADER, *rows(60), "8,8,8,-1"]), ["--gpu", "h100"], "row 61: m, n, k or latency_us is no positive number"),
        ("\n".join([HEADER, *rows(60), "8,8.5,8,1"]), ["--gpu", "h100"], "row 61"),
        ("\n".join([HEADER, *rows(60), "8,8,8"]), ["--gpu", "h100"], "3 cells in 4 columns"),
        ("\n".join([HEADER, *rows(60), "8,8,nan,1"]), ["--gpu", "h100"], "row 61"),
    ],
)
def test_what_cannot_be_fitted_is_refused(tmp_path, capsys, content, words, said):
    file = tmp_path / "gemm.csv"
    file.write_text(content)
    assert calibrate("--data", file, *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["absent.csv", "absent.parquet", "text.parquet"])
def test_files_that_cannot_be_read(tmp_path, capsys, name):
    (tmp_path / "text.parquet").write_text("no parquet")
    assert calibrate("--data", tmp_path / name, "--gpu", "h100") == 2
    assert name in capsys.readouterr().err


def test_several_systems_are_fitted_each_or_one_is_picked(tmp_path, capsys):
    file = tmp_path / "gemm.csv"
    lines = [f"{row},{system}" for system, factor in (("h100_sxm", 1.0), ("b200_sxm", 0.5)) for row in rows(50, factor)]
    file.write_text("\n".join([f"{HEADER},system", *lines]))
    assert calibrate("--data", file, "--json") == 0
    assert [one["gpu"] for one in json.loads(capsys.readouterr().out)["fits"]] == ["b200_sxm", "h100_sxm"]
    assert calibrate("--data", file, "--system", "h100_sxm", "--json") == 0
    assert [one["gpu"] for one in json.loads(capsys.readouterr().out)["fits"]] == ["h100_sxm"]
    assert calibrate("--data", file, "--gpu", "h100") == 2
    assert "Pick one with --system" in capsys.readouterr().err


def test_a_learned_residual_serves_its_own_range_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("distsim.cost.fit.calibration.FEWEST_LEARNED", 300)
    shapes = (2 ** np.random.default_rng(3).uniform(5, 12, (400, 3))).astype(np.int64)
    odd = np.where(shapes[:, 0] % 2 == 1, 1.25, 1.0)  # something that tiles and waves do not know
    seconds = evaluate(shapes, H100, "bf16", typical("bf16"))[:, 0] * odd
    file, target = tmp_path / "gemm.csv", tmp_path / "h100.json"
    lines = [f"{m},{n},{k},{1e6 * t:.4f}" for (m, n, k), t in zip(shapes.tolist(), seconds, strict=True)]
    file.write_text("\n".join([HEADER, *lines]))
    assert calibrate("--data", file, "--gpu", "h100", "--residual", "-o", target, "--json") == 0
    figures = json.loads(capsys.readouterr().out)["figures"][0]
    assert figures["learned"] < 0.7 * figures["error"]
    provider = Hybrid(file=target)
    inside = tuple(int(size) for size in shapes[0])
    answer = provider.answer(gemm(*inside, "bf16"), H100)
    assert answer.source == "hybrid"
    assert answer.seconds == pytest.approx(seconds[0], rel=0.2)
    assert provider.answers([inside], H100, "bf16")[0] == answer.seconds
    assert provider.answer(gemm(20_000, 512, 512, "bf16"), H100) is None
    assert provider.answer(gemm(*inside, "fp8"), H100) is None
    assert provider.answer(gemm(*inside, "bf16"), gpu("h200_sxm")) is None
    content = json.loads(target.read_text())
    content["fits"][0]["residual"]["feature"][0] = 10**6
    target.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="damaged"):
        Hybrid(file=target)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no calibration"), ("[]", "is no calibration"), ('{"version": 1}', "source"),
        ('{"version": 9, "source": "x", "fits": []}', "version 9"),
        ('{"version": 1, "source": "x", "model": "pnorm", "fits": []}', "pnorm"),
        ('{"version": 1, "source": "x", "fits": [{"gpu": "a", "dtype": "bf16", "error": 0, "rows": 1, "parameters": {}}]}',
         "not those of the model"),
    ],
)  # fmt: skip
def test_a_damaged_calibration_is_refused(tmp_path, content, said):
    file = tmp_path / "c.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=said):
        TileWave(file=file)


def test_a_calibration_without_a_learner_is_no_hybrid(points, tmp_path, capsys):
    target = tmp_path / "h100.json"
    assert calibrate("--data", points, "--gpu", "h100", "-o", target) == 0
    with pytest.raises(ConfigError, match="no learned residual"):
        Hybrid(file=target)


def test_validate_counts_what_cannot_be_expressed(tmp_path, capsys):
    content = {
        "system": ["h100_sxm", "h100_sxm", "gpu9000", "a100_sxm"], "dtype": ["bfloat16", "bfloat16", "bfloat16", "fp8"],
        "m": [64, 0, 64, 64], "n": [64] * 4, "k": [64] * 4, "latency_us": [float(1e6 * times([(64, 64, 64)], H100)[0])] * 4,
    }  # fmt: skip
    pq.write_table(pa.table(content), tmp_path / "gemm_measured.parquet")
    assert main(["validate", "compute", "--data", str(tmp_path), "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["expressed"], document["matched"]) == (4, 1, 1)
    assert sum(document["refused"].values()) == 3
    assert document["metrics"]["gemm_mape"] < 1e-6
    assert document["groups"]["gemm, h100_sxm, bf16, tile_wave"]["rows"] == 1


@pytest.mark.parametrize("name", ["gemm_measured.parquet", "other.parquet"])
def test_validate_refuses_folders_without_measurements(tmp_path, capsys, name):
    pq.write_table(pa.table({"x": [1]}), tmp_path / name)
    assert main(["validate", "compute", "--data", str(tmp_path), "--quiet"]) == 2
    assert "has no column" in capsys.readouterr().err or name == "other.parquet"


def test_shipped_parameters_on_the_reference(capsys, compute_reference):
    folder = compute_reference
    assert main(["validate", "compute", "--data", str(folder), "--json", "--quiet", "--fail-over", "gemm_mape=0.1"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    bars = {"a100_sxm": 0.09, "h100_sxm": 0.09, "b200_sxm": 0.11, "l40s": 0.20}
    for name, bar in bars.items():
        found = groups[f"gemm, {name}, bf16, tile_wave"]
        assert found["expressed"] == found["rows"]
        assert found["mape"] <= bar
        assert found["mape"] < groups[f"gemm, {name}, bf16, pnorm"]["mape"] < groups[f"gemm, {name}, bf16, roofline"]["mape"]
        device = gpu(name)
        stated = TileWave().answer(gemm(64, 64, 64, "bf16"), device).error
        assert found["mape"] <= stated * 1.05
