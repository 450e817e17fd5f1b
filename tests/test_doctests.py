"""Examples in docstrings are executed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import distsim

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(distsim.__path__, "distsim.") if module.name != "distsim.__main__"
)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
