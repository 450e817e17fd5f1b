"""Episodes: what has been told before is told again, exactly, wherever the same groups meet in the same way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lease import play, script

from distsim.network.check import drain, kernels, random_transfers, star
from distsim.network.chunk import Chunk
from distsim.network.cut_through import CutThrough
from distsim.network.fifo import FifoLinks

PAUSE = 10**9


def again(steps, times, seed):
    """The same steps over and over, now and then one of the starts left out."""
    dice, many, shift = np.random.default_rng(seed), [], 0
    for _ in range(times):
        skip = int(dice.integers(3 * len(steps)))
        many += [
            (kind, words[0], words[1] + shift) if kind == "start" else (kind, words[0] + shift) if words else (kind,)
            for at, (kind, *words) in enumerate(steps)
            if at != skip or kind != "start"
        ]
        shift += PAUSE
        many.append(("run", shift))
    return many


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6), cut_through=st.booleans(), trials=st.sampled_from([0, 8, 1000]),
    longest=st.sampled_from([2, 2000]), remember=st.sampled_from([200, 10**6]), form=st.sampled_from(["python", "compiled"]),
)  # fmt: skip
def test_remembered_is_simulated(seed, cut_through, trials, longest, remember, form):
    """Law 5: also where memory is given up, cut short or cleared."""
    steps = again(script(seed, 8, 4), 5, seed)
    with kernels(form), pytest.MonkeyPatch.context() as patch:
        for name, value in (("_TRIALS", trials), ("_LONGEST", longest), ("_REMEMBER", remember)):
            patch.setattr(f"distsim.network.episode.{name}", value)
        expected = play(FifoLinks(star(8), cut_through=cut_through), steps)
        assert play((CutThrough if cut_through else Chunk)(star(8)), steps) == expected


def test_what_meets_again_is_not_simulated_again():
    network, dags = Chunk(star(4)), [random_transfers(4, 30, seed) for seed in range(3)]
    works, ends = [], []
    for turn in range(10):
        for late, one in enumerate(dags):
            network.start(one, turn * PAUSE + late)
            network.run_until(turn * PAUSE + late)
        ends.append([at - turn * PAUSE for _, at, _ in drain(network)])
        network.run_until((turn + 1) * PAUSE)
        works.append(network._live._live._work)
    assert len({tuple(one) for one in ends}) == 1
    assert works[-1] <= 2 * works[0]  # twice, for once the first is leased and once, after some turns, no longer
    used = Chunk(star(4), leases=False)
    for one in dags:
        used.start(one, 0)
    drain(used)
    assert (network.usage().busy == 10 * used.usage().busy).all()
