"""Tables of measured kernel times: files of a profile, read and checked, and interpolation between what was measured.

Between two measured sizes a kernel's time is a straight line, whatever the spacing of the grid: kernels move bytes and
multiply in proportion to their sizes. (Leaving out every second attention point of two GPUs' profiles, a straight line in the
size is off by 1 to 9 % from the point left out, a straight line in its logarithm by 5 to 22 %; docs/vllm.md.)
Below the smallest size the smallest counts: kernels work in tiles. Beyond the largest the last line goes on.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from distsim.errors import ConfigError


def find_table(folder: Path, name: str) -> Path | None:
    """``name.csv`` or ``name.csv.gz``."""
    return next((path for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz") if path.is_file()), None)


def read_table(path: Path, texts: Sequence[str], numbers: Sequence[str]) -> list[tuple[list[str], list[float]]]:
    """Rows of a table: values of the columns ``texts`` and ``numbers``; further columns are left alone.

    Raises ConfigError naming file, line and column: unreadable, a column that is missing, no number, no row at all.
    """
    rows = csv.DictReader(io.StringIO(_text(path)))
    header = rows.fieldnames or []
    missing = [name for name in (*texts, *numbers) if name not in header]
    if missing:
        raise ConfigError(
            f"has no column {missing[0]!r}, but {', '.join(header) or 'nothing'}", where=str(path),
            expected=f"columns {', '.join((*texts, *numbers))}",
        )  # fmt: skip
    found = []
    for line, row in enumerate(rows, 2):
        values = []
        for name in numbers:
            try:
                value = float(row[name])
            except (TypeError, ValueError):
                raise ConfigError(f"{name} is {row[name]!r}", where=f"{path}:{line}", expected="a number") from None
            if not (value >= 0 or name == "alpha") or not abs(value) < 1e15:
                raise ConfigError(f"{name} is {row[name]}", where=f"{path}:{line}", expected="a finite number from 0 on")
            values.append(value)
        found.append(([row[name] or "" for name in texts], values))
    if not found:
        raise ConfigError("has no rows", where=str(path))
    return found


def header_of(path: Path) -> list[str]:
    """Columns of a table. Raises ConfigError where it cannot be read."""
    return next(csv.reader(io.StringIO(_text(path))), [])


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None


class Curve:
    """us by one size, in straight lines between the measured ones. top: the largest; beyond it the last line goes on."""

    __slots__ = ("top", "xs", "ys")

    def __init__(self, points: Iterable[tuple[float, float]], top: float | None = None) -> None:
        """Points (size, us); of several at one size the last counts."""
        ordered = sorted(dict(points).items())
        self.xs = [x for x, _ in ordered]
        self.ys = [y for _, y in ordered]
        self.top = self.xs[-1] if top is None else top

    def at(self, x: float) -> float:
        """us at a size."""
        xs, ys = self.xs, self.ys
        if x <= xs[0] or len(xs) == 1:
            return ys[0]
        after = bisect_left(xs, x)
        if after == len(xs):
            after -= 1
        x0, x1, y0, y1 = xs[after - 1], xs[after], ys[after - 1], ys[after]
        if x == x1:
            return y1
        y = y0 + (y1 - y0) * ((x - x0) / (x1 - x0))
        return max(y, y1) if x > x1 else y


def bracket(keys: Sequence[int], x: float) -> list[tuple[int, float]]:
    """The measured sizes beside ``x`` with their weights: one where it was measured or lies below all, else two; beyond the
    largest the weights go on in a straight line (one is negative).

    >>> bracket([16, 32], 20), bracket([16, 32], 8), bracket([16, 32], 48)
    ([(16, 0.75), (32, 0.25)], [(16, 1.0)], [(16, -1.0), (32, 2.0)])
    """
    if x <= keys[0] or len(keys) == 1:
        return [(keys[0], 1.0)]
    after = min(bisect_left(keys, x), len(keys) - 1)
    low, high = keys[after - 1], keys[after]
    if x == high:
        return [(high, 1.0)]
    weight = (x - low) / (high - low)
    return [(low, 1 - weight), (high, weight)]


#: prefill_chunk -> n_decode -> kv_prefill -> kv_decode -> us
Points = dict[int, dict[int, dict[int, dict[float, float]]]]


class Attention:
    """us of one layer's attention over a batch: (new tokens of a prompt, its tokens in cache, sequences that generate, tokens
    in cache of each). The grid may be ragged: what did not fit the memory of the profiled GPU was not measured."""

    def __init__(self, path: Path, skew: Path | None = None) -> None:
        """skew: its batches of equal lengths lie between the grid's, and are taken as well.

        Raises ConfigError, see read_table; also where nothing was measured of prompts alone or of generation alone.
        """
        columns = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
        points: Points = {}
        for _, (chunk, cached, sequences, kv, us) in read_table(path, (), columns):
            one = points.setdefault(int(chunk), {}).setdefault(int(sequences), {})
            one.setdefault(int(cached), {})[kv] = us
        if skew is not None:
            _refine(points, skew)
        self._curves = {
            chunk: {n: {kp: Curve(line.items()) for kp, line in lines.items()} for n, lines in by_n.items()}
            for chunk, by_n in points.items()
        }
        self._chunks = sorted(chunk for chunk in points if chunk)
        self._sequences = {chunk: sorted(n for n in by_n if n) for chunk, by_n in points.items()}
        self._cached = {(chunk, n): sorted(lines) for chunk, by_n in points.items() for n, lines in by_n.items()}
        if not self._sequences.get(0):
            raise ConfigError("has no rows of generation alone (prefill_chunk 0)", where=str(path))
        if not self._chunks or any((chunk, 0) not in self._cached for chunk in self._chunks):
            raise ConfigError("has a prefill_chunk without rows of it alone (n_decode 0)", where=str(path))
        self.most = max(self._sequences[0])
        self._generating: dict[int, Curve] = {}

    def prompt(self, new: int, cached: float) -> float:
        """us of one prompt's ``new`` tokens after ``cached`` ones, alone in its batch."""
        us = 0.0
        for chunk, weight in bracket(self._chunks, new):
            lines = self._curves[chunk][0]
            us += weight * sum(share * lines[kp].ys[0] for kp, share in bracket(self._cached[chunk, 0], cached))
        return us

    def generating(self, sequences: int) -> Curve:
        """us by the tokens in cache of each of ``sequences`` that generate, alone."""
        found = self._generating.get(sequences)
        if found is None:
            found = self._generating[sequences] = self.mixed(0, 0, sequences)
        return found

    def mixed(self, new: int, cached: float, sequences: int) -> Curve:
        """The same beside a prompt's ``new`` tokens after ``cached`` ones (0: none), all in one kernel."""
        parts: list[tuple[float, Curve]] = []
        for chunk, chunk_share in bracket(self._chunks, new) if new else [(0, 1.0)]:
            beside = self._sequences[chunk]
            if not beside:
                continue
            for n, share in bracket(beside, sequences):
                lines = self._curves[chunk][n]
                for kp, kp_share in bracket(self._cached[chunk, n], cached):
                    parts.append((chunk_share * share * kp_share, lines[kp]))
        if len(parts) == 1:
            return parts[0][1]
        knots = sorted({x for _, curve in parts for x in curve.xs})
        low, top = max(curve.xs[0] for _, curve in parts), min(curve.top for _, curve in parts)
        return Curve(((x, sum(w * curve.at(x) for w, curve in parts)) for x in knots if x >= low), top)

    def beyond(self, new: int, cached: float, sequences: int) -> bool:
        """Whether a batch is larger than what was measured, its tokens in cache per sequence apart (see Curve.top)."""
        if sequences > self.most or (new and new > self._chunks[-1]):
            return True
        return bool(new) and any(cached > self._cached[chunk, 0][-1] for chunk, _ in bracket(self._chunks, new))


def _refine(points: Points, skew: Path) -> None:
    """Add the batches of equal lengths of a skew table to the lines of the grid that they lie on, between its points.

    NOTE: profiles have been published whose skew times are those of three forward passes together, which leaves alpha as it is.
    Whatever the factor, the batches that both tables hold tell it.
    """
    columns = ("pc", "kp", "n", "kv_mean", "t_mean_us", "kv_big", "t_max_us")
    equal: dict[tuple[int, int, int], dict[float, float]] = {}
    for _, (chunk, cached, n, mean, at_mean, longest, at_longest) in read_table(skew, (), columns):
        equal.setdefault((int(chunk), int(n), int(cached)), {}).update({mean: at_mean, longest: at_longest})
    beside = [
        (points[chunk][n][cached], batches) for (chunk, n, cached), batches in equal.items()
        if cached in points.get(chunk, {}).get(n, {})
    ]  # fmt: skip
    on_both = [line[kv] / us for line, batches in beside for kv, us in batches.items() if us and kv in line]
    if not on_both:
        return
    factor = median(on_both)
    for line, batches in beside:
        low, high = min(line), max(line)
        line.update({kv: us * factor for kv, us in batches.items() if low < kv < high and kv not in line})
