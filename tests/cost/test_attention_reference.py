"""Attention against measured kernels: bounds on the figures of ``validate compute``, with room for rows not seen here."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsim.errors import ConfigError
from distsim.validation.compute_attention import ContextPart, GenerationPart
from distsim.validation.compute_part import enter
from distsim.validation.suite import Report


def judged(part, path):
    report = Report("compute")
    errors = enter(part.judge(path, report, lambda fraction, what: None), part.metric, report)
    return report, np.concatenate(errors) if errors else np.zeros(0)


#: system -> most mean absolute error of prefill and of decoding, worst data type
BOUNDS = {"a100_sxm": (0.115, 0.15), "h100_sxm": (0.09, 0.17), "b200_sxm": (0.095, 0.11), "l40s": (0.12, 0.17)}


@pytest.mark.parametrize(("part", "place", "total"), [(ContextPart(), 0, 0.097), (GenerationPart(), 1, 0.14)])
def test_figures_of_the_reference(compute_reference, part, place, total):
    report, errors = judged(part, compute_reference / part.files[0])
    assert report.expressed == report.rows == len(errors) > 40_000
    assert np.abs(errors).mean() <= total
    assert abs(errors.mean()) <= 0.03
    seen = set()
    for name, group in report.groups.items():
        if name.endswith(", attention"):
            system = name.split(", ")[1]
            seen.add(system)
            assert group["mape"] <= BOUNDS[system][place], name
            assert abs(group["bias"]) <= 0.05, name
    assert seen == set(BOUNDS)


def table(path, **changes):
    columns = {
        "system": ["h100_sxm"], "kv_cache_dtype": ["bfloat16"], "batch_size": [1], "seq": [1024], "past": [0], "heads": [8],
        "kv_heads": [8], "head_dim": [128], "latency_us": [30.0],
    }  # fmt: skip
    columns.update(changes)
    pq.write_table(pa.table({name: cells for name, cells in columns.items() if cells is not None}), path)
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"system": ["h99"]}, "unknown GPU 'h99'"),
        ({"kv_cache_dtype": ["int2"]}, "attention in int2 on h100_sxm: no model"),
        ({"latency_us": [0.0]}, "latency_us is no positive number"),
        ({"latency_us": [float("nan")]}, "latency_us is no positive number"),
        ({"batch_size": [0]}, "a size below 1"),
        ({"kv_heads": [3]}, "heads do not share kv_heads evenly"),
    ],
)
def test_rows_that_cannot_be_expressed_are_counted(tmp_path, changes, reason):
    report, errors = judged(ContextPart(), table(tmp_path / "t.parquet", **changes))
    assert (report.rows, report.expressed, len(errors)) == (1, 0, 0)
    assert report.refused == {reason: 1}


def test_report_is_json_with_groups_by_provider(tmp_path):
    report, errors = judged(ContextPart(), table(tmp_path / "t.parquet"))
    assert len(errors) == 1
    assert set(report.groups) == {f"attention context, h100_sxm, bf16, {name}" for name in ("attention", "roofline")}
    json.dumps(report.document())


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"heads": None}, "no column heads"), ({"heads": ["many"]}, "heads holds no numbers")],
)
def test_files_that_are_no_measurements_are_refused(tmp_path, changes, text):
    with pytest.raises(ConfigError, match=text):
        judged(ContextPart(), table(tmp_path / "t.parquet", **changes))
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(ConfigError, match="Parquet"):
        judged(ContextPart(), tmp_path / "bad.parquet")
