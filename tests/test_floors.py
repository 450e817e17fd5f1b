"""The structure: imports run only downwards, public names are pinned, --help is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import distsim

PACKAGE = Path(distsim.__file__).parent
FLOOR = {
    "errors": 0, "units": 0, "params": 0, "registry": 0, "kernel": 0, "topology": 0, "record": 0, "result": 0, "provenance": 0,
    "tables": 0, "hardware": 0, "models": 0,
    "trace": 1, "network": 1,
    "collectives": 2, "cost": 2, "nccl": 2,
    "engine": 3,
    "workload": 4, "events": 4, "serving": 4,
    "microbench": 4, "profiles": 4,
    "run_spec": 5, "api": 5, "goodput": 5, "training": 5, "serve": 5, "corun": 5, "command": 5, "scenario": 5, "knobs": 5,
    "analysis": 6, "testing": 6,
    "report": 7, "validation": 7, "sweep": 7, "studies": 7,
    "cli": 8, "__main__": 9,
}  # fmt: skip


def _imports(path: Path) -> set[str]:
    """First-level parts of distsim that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" if node.module == "distsim" else node.module for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("distsim.") and "." in name}
    return found - {"__version__"}


def test_imports_run_only_downwards():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part in ("__init__", "data"):
            continue
        assert part in FLOOR, f"{part} has no floor: add it here and to the architecture"
        wrong += [f"{path.relative_to(PACKAGE)} imports {other}" for other in _imports(path) if FLOOR[other] > FLOOR[part]]
    assert not wrong


def test_public_names_are_pinned():
    assert distsim.__all__ == ["DistsimError", "Result", "RunSpec", "build_topology", "convert", "read_trace", "simulate"]
    for name in distsim.__all__:
        assert getattr(distsim, name) is not None


def test_help_imports_nothing_heavy():
    code = "import sys; from distsim.cli.main import parser_for; parser_for(['--help']); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("numpy", "pydantic", "networkx", "pyarrow", "numba", "simpy", "rich", "yaml", "matplotlib"):
        assert f"'{heavy}'" not in modules
