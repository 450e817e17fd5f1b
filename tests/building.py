"""Traces built by hand, for tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from distsim.trace.graph import Program, TaskGraph

ROOT = Path(__file__).resolve().parent.parent


def reference_folder(name: str) -> Path:
    """A folder of the reference data. Skips the test where it is absent; fails it where CI is true."""
    base = Path(os.environ.get("DISTSIM_REFERENCE") or ROOT.parent / "shared" / "reference")
    folder = base / name
    if not folder.is_dir():
        message = f"reference data {folder} is absent (set DISTSIM_REFERENCE)"
        if os.environ.get("CI") == "true":
            pytest.fail(message + ", but CI=true requires it")
        pytest.skip(message)
    return folder


def program(rows):
    """rows: (id, type, [dependency rows], {column: value})."""
    n = len(rows)
    columns = {
        "id": np.arange(n), "type": np.zeros(n), "name": np.zeros(n), "duration_ps": np.full(n, -1), "start_ps": np.full(n, -1),
        "num_ops": np.full(n, -1), "tensor_size": np.full(n, -1), "cpu": np.zeros(n), "collective": np.full(n, -1),
        "bytes": np.full(n, -1), "group": np.full(n, -1), "peer": np.full(n, -1), "peer_kind": np.zeros(n), "tag": np.zeros(n),
        "priority": np.zeros(n), "root": np.zeros(n), "dims": np.full(n, -1), "stream": np.full(n, -1),
    }  # fmt: skip
    kinds = {
        "type": np.int8, "name": np.int32, "cpu": np.bool_, "collective": np.int8, "group": np.int32, "peer": np.int32,
        "peer_kind": np.int8, "priority": np.int32, "root": np.int32, "dims": np.int32, "stream": np.int32,
    }  # fmt: skip
    for row, (number, kind, _, values) in enumerate(rows):
        columns["id"][row], columns["type"][row] = number, kind
        for name, value in values.items():
            columns[name][row] = value
    degree = [len(deps) for _, _, deps, _ in rows]
    return Program(
        dep_ptr=np.concatenate(([0], np.cumsum(degree))).astype(np.int64),
        dep=np.array([d for _, _, deps, _ in rows for d in deps], dtype=np.int32),
        **{name: values.astype(kinds.get(name, np.int64)) for name, values in columns.items()},
    )


def graph(*programs, groups=()):
    return TaskGraph(tuple(programs), np.arange(len(programs), dtype=np.int32), tuple(groups), names=("",), source="test")
