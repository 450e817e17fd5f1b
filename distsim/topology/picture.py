"""What a drawing consists of, before it is SVG or PNG: points, curves, boxes and text, in pixels, y downwards."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

WIDTH, MARGIN, BAND = 1200, 56, 24
FONT = 11


@dataclass(frozen=True, slots=True)
class Label:
    """Text centred on a point."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """A block of nodes: a frame, dashed where it stands for several."""

    x: float
    y: float
    width: float
    height: float
    dashed: bool
    name: str  #: said when it is pointed at


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing that both writers render."""

    title: str
    height: float
    hosts: int  #: the first so many points are hosts
    names: tuple[str, ...]  #: per point
    points: NDArray[np.float64]  #: (points, 2)
    radius: float  #: of a host; switches are larger
    cables: tuple[NDArray[np.float64], ...]  #: per domain (n, 6): start, control point, end of each curve
    widths: tuple[float, ...]  #: per domain
    labels: tuple[Label, ...]
    legend: tuple[str, ...]  #: per domain
    boxes: tuple[Box, ...] = ()
    #: per link of the topology the curve that shows it, counted through ``cables`` of all domains; -1: none does
    link_curve: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    #: per link the box that both of its ends are in, -1: none
    link_box: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def text_width(text: str) -> float:
    """Pixels that a text takes, about."""
    return 0.6 * FONT * len(text) + 2
