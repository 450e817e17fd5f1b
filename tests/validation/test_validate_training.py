"""Suite ``training``: its bars on the reference rows, and what it does with rows that it cannot express."""

from __future__ import annotations

import csv
import gzip
import json

import pytest

from distsim.cli.main import main

#: MAPE of a family's complete rows that must not be exceeded
BARS = {
    "megatron-dense": 0.07,
    "zero3": 0.12,
    "llm-foundry": 0.09,
    "torchtitan": 0.09,
    "megatron-bridge": 0.14,
    "simumax-b200": 0.08,
    "bigscience": 0.12,
    "vtrain-multi": 0.09,
    "memory, simumax-b200": 0.04,
    "memory, torchtitan": 0.04,
    "memory, bigscience": 0.08,
}
HEAD = [
    "id",
    "family",
    "model",
    "layers",
    "hidden",
    "heads",
    "kv_heads",
    "ffn_hidden",
    "vocab",
    "seq_len",
    "gpu",
    "n_gpus",
    "dp",
    "tp",
    "pp",
    "cp",
    "ep",
    "vpp",
    "micro_batch",
    "global_batch",
    "precision",
    "recompute",
    "sequence_parallel",
    "zero_stage",
    "network",
    "metric",
    "value",
    "complete",
]


def row(**changes: object) -> dict[str, object]:
    """A row of a made-up GPT on eight A100."""
    said = {
        "id": "X1",
        "family": "mine",
        "model": "GPT",
        "layers": 12,
        "hidden": 2048,
        "heads": 16,
        "kv_heads": 16,
        "ffn_hidden": 8192,
        "vocab": 50257,
        "seq_len": 1024,
        "gpu": "A100-80G",
        "n_gpus": 8,
        "dp": 2,
        "tp": 4,
        "pp": 1,
        "cp": 1,
        "ep": 1,
        "vpp": 1,
        "micro_batch": 4,
        "global_batch": 32,
        "precision": "fp16",
        "recompute": "full",
        "sequence_parallel": "no",
        "zero_stage": 0,
        "network": "NVLink3",
        "metric": "ms/iteration",
        "value": 400,
        "complete": "yes",
    }
    return {**said, **changes}


def table(folder, rows, name="published_training_x.csv.gz") -> str:
    path = folder / name
    with gzip.open(path, "wt", newline="") if name.endswith(".gz") else open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, HEAD)
        writer.writeheader()
        writer.writerows(rows)
    return str(folder)


def validate(capsys, *arguments: str) -> dict:
    assert main(["validate", "training", *arguments, "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


def test_rows_are_predicted_in_their_own_metric(tmp_path, capsys):
    data = table(
        tmp_path, [row(), row(id="X2", metric="tokens/s/GPU", value=1000), row(id="X3", metric="s/iteration", value=0.4)]
    )
    report = validate(capsys, "--data", data)
    assert report["rows"] == report["expressed"] == 3
    told = {one["row"].split()[1].rstrip(":"): float(one["row"].split()[-1]) for one in report["worst"]}
    assert told["X1"] == pytest.approx(1000 * told["X3"], rel=1e-3)
    assert told["X2"] == pytest.approx(32 * 1024 / told["X3"] / 8, rel=1e-3)


def test_incomplete_rows_are_reported_apart_and_inexpressible_ones_with_the_reason(tmp_path, capsys):
    rows = [
        row(),
        row(id="X2", complete="no"),
        row(id="X3", layers=""),
        row(id="X4", metric="furlongs"),
        row(id="X5", gpu="Z1"),
        row(id="X6", tp=3, dp=1, n_gpus=3),
        row(id="X7", value="many"),
    ]
    report = validate(capsys, "--data", table(tmp_path, rows, "published_training_x.csv"))
    assert report["expressed"] == 2
    assert report["groups"]["mine"]["rows"] == 6
    assert report["groups"]["mine"]["expressed"] == 1
    assert report["groups"]["mine, incomplete"]["expressed"] == 1
    assert sum(report["refused"].values()) == 5
    assert any("furlongs" in reason for reason in report["refused"])


def test_folders_without_tables_and_tables_without_columns_are_refused(tmp_path, capsys):
    assert main(["validate", "training", "--data", str(tmp_path)]) == 2
    assert "published_training" in capsys.readouterr().err
    (tmp_path / "published_training_x.csv").write_text("id,model\n1,GPT\n")
    assert main(["validate", "training", "--data", str(tmp_path)]) == 2
    assert "metric" in capsys.readouterr().err


@pytest.mark.slow
def test_published_rows_meet_their_bars(training_reference, tmp_path, capsys):
    for path in training_reference.glob("published_training*"):
        (tmp_path / path.name).symlink_to(path)
    report = validate(capsys, "--data", str(tmp_path))
    assert report["metrics"]["expressed_complete"] >= 0.9
    # single-node rows: .ci/run
    missed = {name: report["groups"][name]["mape"] for name, bar in BARS.items() if report["groups"][name]["mape"] > bar}
    assert not missed
