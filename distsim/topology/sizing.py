"""Inferring sizes from the number of ranks, and saying so."""

from __future__ import annotations

from typing import TypeVar

from distsim.errors import TopologyError
from distsim.params import Parameters

P = TypeVar("P", bound=Parameters)
T = TypeVar("T")

DEFAULT_HOSTS = 8  #: of the builders that are as large as their job, when there is no job


def hosts_or_default(params: P, hosts: int | None) -> tuple[P, tuple[str, ...]]:
    """Parameters whose ``hosts``, if not given, is the number of ranks."""
    if getattr(params, "hosts", None) is not None:
        return params, ()
    size = hosts or DEFAULT_HOSTS
    return params.model_copy(update={"hosts": size}), (f"hosts={size} {because(hosts)}",)


def known(value: T | None) -> T:
    """A parameter that ``complete`` has set; a builder asks for its sizes this way."""
    if value is None:
        raise TopologyError("a size is still open", fix="Build from a spec, or call complete() first.")
    return value


def because(hosts: int | None) -> str:
    """Where a size came from, to follow ``key=value`` in a sentence."""
    return f"inferred from {ranks(hosts)}" if hosts else "by default, as there is no job to infer it from"


def ranks(hosts: int) -> str:
    """``1 rank``, ``8 ranks``."""
    return f"{hosts} rank{'' if hosts == 1 else 's'}"
