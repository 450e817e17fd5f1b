"""Shared by the tests of studies."""

from __future__ import annotations

import hashlib
import os
import subprocess
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


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """``distsim ARGUMENTS`` in a process of its own that knows the fake kind."""
    code = "import sys, fake_plans; from distsim.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": str(HERE), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of everything in a study's folder but the journal, whose lines are in order of completion."""
    files = [file for file in sorted(folder.iterdir()) if file.name != "journal.jsonl"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
