"""Charts: lines over a logarithmic axis, drawn by matplotlib where it is installed (``pip install '.[draw]'``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError

SUFFIXES = (".svg", ".png", ".pdf")


@dataclass(frozen=True, slots=True)
class Series:
    """One line (or cloud of labelled points)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str] = ()  #: beside the points


def check_chart(path: str) -> None:
    """Refuse, before any work, what could not be written. Raises ConfigError."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ConfigError(f"cannot draw {path}", expected=f"a name that ends in {', '.join(SUFFIXES)}")
    if not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {Path(path).absolute().parent}", where=path)
    _pyplot()


def draw_chart(
    path: str, series: Sequence[Series], *, title: str, x: str, y: str, log_x: int = 0, log_y: int = 0, points: bool = False
) -> None:
    """Write a chart; ``log_x`` and ``log_y`` are bases (0: linear); ``points``: no lines. Raises ConfigError."""
    check_chart(path)
    figure, axes = _pyplot().subplots(figsize=(8, 5), layout="constrained")
    for one in series:
        axes.plot(one.x, one.y, "o" if points else "o-", label=one.name, markersize=7 if points else 3)
        for at, label in zip(zip(one.x, one.y, strict=True), one.labels, strict=False):
            axes.annotate(label, at, textcoords="offset points", xytext=(7, 5))
    if log_x:
        axes.set_xscale("log", base=log_x)
    if log_y:
        axes.set_yscale("log", base=log_y)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    if len(series) > 1:
        axes.legend()
    kind = Path(path).suffix.lower()[1:]
    part = f"{path}.part"
    # NOTE: no date and no random ids, so that the same answer gives the same bytes
    _pyplot().rcParams["svg.hashsalt"] = "distsim"
    figure.savefig(part, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    _pyplot().close(figure)
    os.replace(part, path)


def _pyplot() -> Any:
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise ConfigError("charts are drawn by matplotlib, which is not installed", fix="pip install 'distsim[draw]'") from None
    return pyplot
