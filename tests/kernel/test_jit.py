"""Both forms of a kernel answer alike, see the right form of their callees, and are chosen by the work."""

import sys

import numpy as np
import pytest

from distsim.kernel import jit
from distsim.kernel.jit import COMPILE_ABOVE, COMPILE_ABOVE_LOADED, kernel


@kernel
def twice(value):
    return 2 * value


@kernel
def fill(values, count):
    """Writes 0, 2, 4 ..."""
    for at in range(count):
        values[at] = twice(at)
    return count


def test_forms_agree_and_write_in_place():
    listed, array = [0] * 5, np.zeros(5, dtype=np.int64)
    assert fill(listed, 5) == fill.interpreted(listed, 5) == fill.compiled(array, 5) == 5
    assert listed == array.tolist() == [0, 2, 4, 6, 8]


def test_a_callee_or_a_constant_that_changes_gives_another_name_in_the_cache(monkeypatch):
    before = fill._fingerprint()
    assert before == kernel(fill._source)._fingerprint()

    def thrice(value):
        return 3 * value

    monkeypatch.setitem(fill._source.__globals__, "twice", kernel(thrice))
    assert fill._fingerprint() != before


def test_a_kernel_keeps_its_name_and_docstring():
    assert fill.__name__ == "fill"
    assert fill.__doc__ == "Writes 0, 2, 4 ..."


@pytest.mark.parametrize(
    ("choice", "steps", "compiled"),
    [("", 1, False), ("", COMPILE_ABOVE + 1, True), ("python", 10**9, False), ("compiled", 1, True)],
)
def test_work_and_environment_choose_the_form(monkeypatch, choice, steps, compiled):
    monkeypatch.setenv("DISTSIM_KERNELS", choice)
    function, is_compiled = fill.for_work(steps)
    assert is_compiled is compiled
    assert function is (fill.compiled if compiled else fill.interpreted)


@pytest.mark.parametrize("loaded", [False, True])
def test_where_numba_is_loaded_less_work_is_worth_it(monkeypatch, loaded):
    monkeypatch.delenv("DISTSIM_KERNELS", raising=False)
    known = kernel(fill._source)
    monkeypatch.setattr(known, "_known", True)
    monkeypatch.setitem(sys.modules, "numba", sys.modules["numba"])
    if not loaded:
        monkeypatch.delitem(sys.modules, "numba")
    assert not known.for_work(COMPILE_ABOVE_LOADED)[1]
    assert kernel(fill._source).for_work(1)[1] is False
    assert known.for_work(COMPILE_ABOVE_LOADED + 1, COMPILE_ABOVE_LOADED)[1] is loaded


def test_a_kernel_in_use_serves_small_jobs_too(monkeypatch):
    monkeypatch.delenv("DISTSIM_KERNELS", raising=False)
    fill.compiled  # noqa: B018
    assert fill.for_work(jit.COMPILE_ABOVE_READY + 1)[1]
    assert not fill.for_work(jit.COMPILE_ABOVE_READY)[1]


def test_small_jobs_count_together_and_no_step_counts_twice(monkeypatch, tmp_path):
    monkeypatch.delenv("DISTSIM_KERNELS", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    fresh = kernel(fill._source)
    part = jit.COMPILE_ABOVE_COLD // 2
    jobs = jit.COMPILE_AFTER // (2 * part)
    for _ in range(jobs):  # each asks twice, as it grows
        assert not fresh.for_work(part)[1]
        assert not fresh.for_work(2 * part, part)[1]
    assert not fresh.for_work(part, part)[1]  # a look ahead adds nothing
    left = jit.COMPILE_AFTER - jobs * 2 * part
    assert fresh.for_work(left + 1)[1]


def test_a_kernel_looks_for_its_compiled_form_once(monkeypatch, tmp_path):
    monkeypatch.delenv("DISTSIM_KERNELS", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    fresh = kernel(fill._source)
    looked = []
    monkeypatch.setattr(jit.Kernel, "on_disk", lambda self: bool(looked.append(self)))
    for _ in range(5):
        fresh.for_work(COMPILE_ABOVE + 1)
    assert len(looked) == 1


def test_a_kernel_that_was_never_compiled_here_stays_interpreted_for_longer(monkeypatch, tmp_path):
    monkeypatch.delenv("DISTSIM_KERNELS", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    said = []
    monkeypatch.setattr(jit, "announce", lambda: said.append(1))
    jit._announce_once.cache_clear()
    fresh = kernel(fill._source)
    assert not fresh.on_disk()
    assert fresh.for_work(jit.COMPILE_ABOVE_COLD)[1] is False
    assert said == []
    function, compiled = fresh.for_work(jit.COMPILE_ABOVE_COLD + 1)
    assert compiled
    assert said == [1]
    array = np.zeros(3, dtype=np.int64)
    assert function(array, 3) == 3
    assert fresh.for_work(COMPILE_ABOVE + 1)[1] is True
