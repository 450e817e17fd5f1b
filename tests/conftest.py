"""Shared by all tests: where the reference data is, and how its absence shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


@pytest.fixture
def astra_reference() -> Path:
    """Results of ASTRA-sim."""
    return reference_folder("astra")


@pytest.fixture
def simai_reference() -> Path:
    """Workloads, topologies and results of SimAI."""
    return reference_folder("simai")


@pytest.fixture
def goal_reference() -> Path:
    """Results of LogGOPSim."""
    return reference_folder("goal")


@pytest.fixture
def network_reference() -> Path:
    """Flow scenarios and SimGrid's answers to them."""
    return reference_folder("network")


@pytest.fixture
def nccl_reference() -> Path:
    """Measured collectives."""
    return reference_folder("nccl")


@pytest.fixture
def compute_reference() -> Path:
    """Measured kernels."""
    return reference_folder("compute")


@pytest.fixture
def training_reference() -> Path:
    """Published and measured training performance."""
    return reference_folder("training")
