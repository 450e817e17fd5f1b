"""The clock: order within an instant, planes between events, settling."""

from __future__ import annotations

from distsim.kernel.clock import Clock
from distsim.kernel.collector import collector_paused


class Plane:
    """Tells at given times."""

    def __init__(self, name, times, said):
        self.name, self.times, self.said = name, list(times), said

    def next_event(self):
        return self.times[0] if self.times else 1 << 63

    def advance(self, limit):
        if not self.times or self.times[0] > limit:
            return None
        at = self.times.pop(0)
        return at, lambda _: self.said.append((self.name, at))


def test_deliveries_then_timers_then_settling():
    clock, said = Clock(), []
    clock.attach(Plane("plane", [5, 7], said))
    clock.call_at(5, lambda _: (said.append(("timer", clock.now)), clock.settle(lambda: said.append(("settled", clock.now)))))
    clock.call_at(5, lambda _: said.append(("second timer", clock.now)))
    clock.run()
    assert said == [("plane", 5), ("timer", 5), ("second timer", 5), ("settled", 5), ("plane", 7)]
    assert (clock.now, clock.events) == (7, 5)


def test_two_planes_tell_in_the_order_of_time_then_of_attaching():
    clock, said = Clock(), []
    clock.attach(Plane("a", [3, 9, 9], said))
    clock.attach(Plane("b", [1, 3, 9], said))
    clock.run()
    assert [at for _, at in said] == [1, 3, 3, 9, 9, 9]
    assert said[:3] == [("b", 1), ("a", 3), ("b", 3)]


def test_what_settling_starts_in_the_same_instant_settles_again():
    clock, said = Clock(), []

    def again():
        said.append(("again", clock.now))

    def first():
        said.append(("first", clock.now))
        clock.call_at(clock.now, lambda _: (said.append(("timer", clock.now)), clock.settle(again)))

    clock.settle(first)
    clock.call_at(2, lambda _: said.append(("later", clock.now)))
    clock.run()
    assert said == [("first", 0), ("timer", 0), ("again", 0), ("later", 2)]


def test_a_run_until_leaves_the_rest():
    clock, said = Clock(), []
    for at in (1, 2, 3):
        clock.call_at(at, lambda _: said.append(clock.now))
    clock.run(until=2)
    assert said == [1, 2]
    clock.run()
    assert said == [1, 2, 3]


def test_the_collector_is_paused_and_comes_back():
    import gc

    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
