"""The folder's own helper module, whatif_cases."""

from __future__ import annotations

import sys
from pathlib import Path

# NOTE: pytest's importlib mode does not put a test's folder on the path
sys.path.insert(0, str(Path(__file__).parent))
