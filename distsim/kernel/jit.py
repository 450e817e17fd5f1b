"""One source, two speeds: a kernel runs as plain Python on lists, or compiled by numba on arrays when the job is large.

A first small run must not wait for a compiler (loading numba alone costs about 0.5 s), while a large one must not crawl:
the caller says how much work there is, and :meth:`Kernel.for_work` picks. A kernel is a module-level function over flat
sequences and integers that writes into them in place; it calls no numpy function, so that lists and arrays do alike, and
it guards where Python and machine integers differ: only non-negative operands for ``//`` and ``%``, values below 2^62.
Kernels may call other kernels by their plain names: the compiled form sees the compiled callee.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Below this many elementary steps the interpreter is done before numba would be loaded (about 0.6 s against 1-2 us a step).
COMPILE_ABOVE = 200_000
#: The same once numba is there (a trace was decoded by a compiled kernel, say): one more kernel takes 10-150 ms to load.
COMPILE_ABOVE_LOADED = 50_000
#: The same once it has been called in this process: what is left is to make arrays of the lists.
COMPILE_ABOVE_READY = 10_000
#: The same while the kernel has never been compiled on this machine: the compiler takes as long as some million steps.
COMPILE_ABOVE_COLD = 3_000_000
#: The same for many small jobs together: interpreted, level ``fluid`` loses 0.45 us a step (22 M steps: 17.1 s for 7.3 s), and
#: compiling it takes 26 s; waiting until as much is lost costs at worst twice the better choice.
COMPILE_AFTER = 50_000_000

#: told, once a process, that a kernel is being compiled for the first time on this machine (the command line says so)
announce: Callable[[], None] = lambda: None  # noqa: E731


class Kernel:
    """A function in two forms, ``interpreted`` and ``compiled``; calling it runs the interpreted one.

    Either form sees the same form of the kernels that it calls.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._source = function
        self._interpreted: Callable[..., Any] | None = None
        self._compiled: Callable[..., Any] | None = None
        self._known: bool | None = None  # compiled before this process; None: not looked yet
        self._spent = 0  # steps that this process has had interpreted

    def __call__(self, *args: Any) -> Any:
        return self.interpreted(*args)

    def _with(self, form: str) -> Any:
        """A copy of the source whose globals hold that form of its callees instead of Kernel objects."""
        function: Any = self._source
        scope = dict(function.__globals__)
        for name in function.__code__.co_names:
            callee = scope.get(name)
            if isinstance(callee, Kernel) and callee is not self:
                scope[name] = getattr(callee, form)
        copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
        copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
        return copy

    def _fingerprint(self) -> str:
        """Changes with the code, with the numbers among its globals and with everything that it calls."""
        code = self._source.__code__
        scope = self._source.__globals__
        parts = [_text(code)]
        for name in code.co_names:
            value = scope.get(name)
            if isinstance(value, Kernel) and value is not self:
                parts.append(value._fingerprint())
            elif isinstance(value, int | float | str):
                parts.append(f"{name}={value!r}")
        return hashlib.blake2s("\n".join(parts).encode(), digest_size=8).hexdigest()

    @property
    def interpreted(self) -> Callable[..., Any]:
        """The plain Python form; its callees are called without the detour over Kernel objects."""
        if self._interpreted is None:
            self._interpreted = self._with("interpreted")
        return self._interpreted

    @property
    def compiled(self) -> Callable[..., Any]:
        """The numba form (``cache=True``: later processes load it from disk)."""
        if self._compiled is None:
            if not self.on_disk():
                _announce_once()
            import numba

            copy = self._with("compiled")
            # NOTE: numba's cache only notices changes of the function's own file; with the fingerprint in its name, code whose
            # constants or callees changed in another file is compiled anew instead of being loaded stale.
            copy.__qualname__ += f"_{self._fingerprint()}"
            self._compiled = numba.njit(cache=True, nogil=True)(copy)
        return self._compiled

    def on_disk(self) -> bool:
        """Whether numba has compiled it on this machine before: its index file is where numba keeps such files."""
        file = Path(self._source.__code__.co_filename)
        name = f"{file.stem}.{self._source.__qualname__}_{self._fingerprint()}-*.nbi"
        chosen = os.environ.get("NUMBA_CACHE_DIR")
        if chosen:
            return any(Path(chosen).rglob(name))
        beside = file.parent / "__pycache__"
        return any(beside.glob(name)) or any((Path.home() / ".cache" / "numba").rglob(name))

    def for_work(self, steps: int, known: int = 0) -> tuple[Callable[..., Any], bool]:
        """(function, is_compiled) for a job of about ``steps`` elementary steps, of which earlier calls have told ``known``.

        Jobs that are small one by one are compiled once those before them, in this process, were as long as it takes.
        ``DISTSIM_KERNELS=python|compiled`` overrules (tests of law 5 run both).
        """
        choice = os.environ.get("DISTSIM_KERNELS", "")
        if choice == "compiled" or (choice != "python" and self._worth(steps, self._spent + steps - known)):
            return self.compiled, True
        self._spent += steps - known
        return self.interpreted, False

    def _worth(self, steps: int, spent: int) -> bool:
        """Whether a job of so many steps, or so many in all since the process began, pays for getting the compiled form."""
        if self._compiled is not None:
            return steps > COMPILE_ABOVE_READY
        above = COMPILE_ABOVE_LOADED if "numba" in sys.modules else COMPILE_ABOVE
        if max(steps, spent) <= above or steps <= COMPILE_ABOVE_READY:
            return False
        if self._known is None:  # NOTE looked up once: jobs of many small parts ask thousands of times, at 3 ms each
            self._known = self.on_disk()
        return self._known or steps > COMPILE_ABOVE_COLD or spent > COMPILE_AFTER


@functools.cache
def _announce_once() -> None:
    announce()


def _text(code: types.CodeType) -> str:
    """What a function does, as text that is the same in every process."""
    constants = [_text(value) if isinstance(value, types.CodeType) else repr(value) for value in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def kernel(function: Callable[..., Any]) -> Kernel:
    """Decorator: see :class:`Kernel`."""
    return Kernel(function)
