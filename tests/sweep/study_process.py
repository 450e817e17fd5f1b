"""``distsim`` in processes of their own, and what they leave behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


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
