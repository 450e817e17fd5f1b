"""Progress on stderr, for runs that last: nothing in the first two seconds, then one line that renews itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

_PATIENCE = 2.0  #: seconds until the first word
_RENEW = 0.2  #: seconds between renewals on a terminal
_LINES = 10.0  #: seconds between lines elsewhere


class Progress:
    """Told (fraction done or None, what is going on) by a run; a context manager that leaves a clean line behind."""

    def __init__(self, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._now = now
        self._terminal = self._stream.isatty()
        self._next = now() + (_PATIENCE if self._terminal else _LINES)
        self._what = ""
        self._since: tuple[float, float] | None = None  #: (when, fraction) of the first fraction of what is going on
        self._shown = False

    def __call__(self, fraction: float | None, what: str) -> None:
        now = self._now()
        if what != self._what:
            self._what, self._since = what, None
        if fraction is not None and self._since is None:
            self._since = now, fraction
        if now < self._next:
            return
        line = what + self._left(now, fraction)
        if self._terminal:
            self._stream.write(f"\r\x1b[2K{line[:100]}")
            self._shown = True
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()
        self._next = now + (_RENEW if self._terminal else _LINES)

    def _left(self, now: float, fraction: float | None) -> str:
        """`` 43 %, about 12 s left``."""
        if fraction is None or self._since is None:
            return ""
        when, first = self._since
        done = f" {100 * fraction:.0f} %"
        if fraction <= first:
            return done
        left = (now - when) * (1 - fraction) / (fraction - first)
        return f"{done}, about {f'{left / 60:.0f} min' if left >= 120 else f'{left:.0f} s'} left"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
