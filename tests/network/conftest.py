"""Shared by the network tests."""

import pytest


@pytest.fixture(params=["python", "compiled"])
def form(request, monkeypatch):
    """Both forms of the kernels."""
    monkeypatch.setenv("DISTSIM_KERNELS", request.param)
    return request.param
