"""Shared by the tests of studies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # worker processes get it from us: they import fake_plans

FAKE_STUDY = """
kind: fake
name: plans
grid:
  tp: {from: 1, to: 8, step: 1}
  pp: [1, 2, 4, 8]
constraints: ["tp * pp <= 32"]
"""


@pytest.fixture
def fake_study(tmp_path: Path) -> Path:
    """A study of 32 made-up plans, 21 of which can be run."""
    import fake_plans  # noqa: F401  (registers the kind)

    path = tmp_path / "plans.yaml"
    path.write_text(FAKE_STUDY)
    return path
