"""Shared by the trace tests: the reference data beside the project, and the folder's own helper module."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# NOTE: pytest's importlib mode does not put a test's folder on the path; trace_documents lives here
sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of reference data: $DISTSIM_REFERENCE, else ../shared/reference. Skips where it is absent; fails there in CI."""
    folder = Path(os.environ.get("DISTSIM_REFERENCE") or ROOT.parent / "shared" / "reference")
    if not folder.is_dir():
        reason = f"no reference data at {folder} (set DISTSIM_REFERENCE)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
