"""What a service can be made of: schedulers, routers, arrival processes, one line each; models and GPUs as for training."""

from __future__ import annotations

from typing import Any

from distsim import registry
from distsim.report import catalog

#: what is listed -> its role
_ROLES = {
    "schedulers": "scheduler", "routers": "router", "autoscalers": "autoscaler",
    "requests": "requests", "arrivals": "arrivals", "lengths": "lengths",
}  # fmt: skip


def rows(what: str) -> list[dict[str, Any]]:
    """JSON-ready: name, what it is, and options with their defaults (None: to be given, or not set)."""
    role = _ROLES.get(what)
    if role is None:
        return catalog.rows(what)
    found = []
    for name in registry.names(role):
        component = registry.lookup(role, name)
        fields = getattr(getattr(component, "Params", None), "model_fields", {})
        options = {key: None if field.is_required() else field.default for key, field in fields.items()}
        about = (component.__doc__ or "").strip().partition("\n")[0]
        required = [key for key, field in fields.items() if field.is_required()]
        plain = {key: _plain(value) for key, value in options.items()}
        found.append({"name": name, "about": about, "options": plain, "required": required})
    return found


def text(what: str) -> str:
    """The list for a terminal: a line each, its options below."""
    if what not in _ROLES:
        return catalog.text(what)
    lines = []
    for one in rows(what):
        lines.append(f"  {one['name']:<20}{one['about']}")
        needed = one["required"]
        said = ", ".join(
            f"{key} (required)" if key in needed else key if value is None else f"{key}={value}"
            for key, value in sorted(one["options"].items(), key=lambda option: option[0] not in needed)
        )
        lines += [f"  {'':<20}  {said}"] if said else []
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(value)
