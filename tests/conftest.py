"""Shared by all tests: where the reference data is, and how its absence shows."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from building import reference_folder

# NOTE: a job in the background of a shell script ignores SIGINT, and so would all that tests start and interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture
def serving_reference() -> Path:
    """Runs of Vidur and vLLM, request traces, measured serving points."""
    return reference_folder("serving")


@pytest.fixture
def traces_reference() -> Path:
    """Traces captured on real GPUs, with what was measured in them."""
    return reference_folder("traces")
