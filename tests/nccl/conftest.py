"""Shared by the NCCL tests: the reference data, and the folder's own helper module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import reference_folder

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def nccl_reference() -> Path:
    """Measured collectives."""
    return reference_folder("nccl")
