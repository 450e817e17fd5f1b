"""What communicators and ranks of captures are called, and which columns a run's table has."""

from __future__ import annotations

import pytest
from kineto_jobs import moe_job

from distsim.cli.main import main
from distsim.trace.kineto.communicators import Common, labels


@pytest.mark.parametrize(("ranks", "label"), [
    (range(8), "all 8 ranks"), (range(4), "ranks 0 to 3"), ((0, 4), "ranks 0, 4"), ((1, 2), "ranks 1, 2"),
    ((0, 1, 2, 4, 6), "5 ranks from 0"), ((), "stream 9 of device 0"),
])  # fmt: skip
def test_a_stream_is_called_by_its_ranks(ranks, label):
    assert labels([Common("stream 9 of device 0", "stream", tuple(ranks), len(ranks))], 8) == [label]


def test_several_of_the_same_ranks_are_told_apart_and_named_groups_keep_their_names():
    everyone = tuple(range(8))
    commons = [Common("stream 9 of device 0", "stream", everyone, 8), Common("pg 0", "group", everyone, 8),
               Common("stream 12 of device 0", "stream", everyone, 8)]  # fmt: skip
    assert labels(commons, 8) == ["all 8 ranks (1)", "pg 0", "all 8 ranks (2)"]


def test_one_rank_says_which_of_the_job_it_is_and_waits_for_nobody(tmp_path, capsys):
    job = moe_job(1, 2, 4, pipeline=False)
    for rank in (2, 5):
        (tmp_path / f"kineto_rank{rank}.json").write_bytes(job.files[rank])
    assert main(["run", str(tmp_path / "kineto_rank2.json")]) == 0
    out = capsys.readouterr().out
    assert "rank 0 here is rank 2 of 8 of the job" in out
    head = next(line for line in out.splitlines() if line.startswith("  operation"))
    assert "waiting" not in head
    assert "algorithm" not in head
    assert main(["run", str(tmp_path)]) == 0
    assert "ranks 0 to 1 here are ranks 2, 5 of 8 of the job" in capsys.readouterr().out


def test_all_ranks_show_what_they_waited(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for rank, data in enumerate(moe_job(1, 2, 4).files):
        (tmp_path / f"kineto_rank{rank}.json").write_bytes(data)
    assert main(["run", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "here is rank" not in out
    assert "waiting" in next(line for line in out.splitlines() if line.startswith("  operation"))
