"""Named components: a new topology, collective, level or provider is one new file that registers itself.

``@register("topology", "torus")`` puts a component under a role and a name. :func:`lookup` finds it: it first imports the
module of that name in the role's package, then the whole package, then the plugins of the entry-point group
``distsim.plugins``; so a run imports only what it uses, and a wrong name gets the nearest right ones.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from distsim.errors import UnknownNameError

T = TypeVar("T")

#: role -> package whose modules register components of that role
PACKAGES = {
    "topology": "distsim.topology.builders",
    "collective": "distsim.collectives",
    "routing": "distsim.topology.policies",
    "network": "distsim.network",
    "cost": "distsim.cost",
    "kernels": "distsim.cost.kernels",
    "pipeline": "distsim.workload.training.schedules",
    "suite": "distsim.validation",
    "study": "distsim.sweep.kinds",
    "arrivals": "distsim.serving.requests.arrivals",
    "lengths": "distsim.serving.requests.lengths",
    "requests": "distsim.serving.requests.formats",
    "iteration": "distsim.serving.times",
    "scheduler": "distsim.serving.schedulers",
    "router": "distsim.serving.routers",
    "autoscaler": "distsim.serving.operations.autoscalers",
    "notebook": "distsim.report.notebook",
}
_components: dict[str, dict[str, Any]] = {role: {} for role in PACKAGES}
_imported: set[str] = set()


def register(role: str, name: str) -> Callable[[T], T]:
    """Class or function decorator: makes the component findable as ``name`` in ``role``."""

    def put(component: T) -> T:
        _components.setdefault(role, {})[name] = component
        return component

    return put


def lookup(role: str, name: str, *, where: str = "") -> Any:
    """The component registered as ``name``. Raises UnknownNameError with the nearest names."""
    known = _components.setdefault(role, {})
    if name not in known and name.isidentifier():
        module = f"{PACKAGES[role]}.{name}"
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
    if name not in known:
        names(role)
    if name not in known:
        raise UnknownNameError(role, name, known, where=where)
    return known[name]


def names(role: str) -> list[str]:
    """Every name of a role, plugins included, sorted."""
    if role not in _imported:
        package = importlib.import_module(PACKAGES[role])
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{PACKAGES[role]}.{module.name}")
        _imported.add(role)
        _load_plugins()
    return sorted(_components[role])


def _load_plugins() -> None:
    if "plugins" not in _imported:
        _imported.add("plugins")
        from importlib.metadata import entry_points

        for point in entry_points(group="distsim.plugins"):
            point.load()
