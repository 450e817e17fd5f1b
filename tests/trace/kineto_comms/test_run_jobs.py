"""distsim run on the captures of made-up jobs: recorded, over a network, expanded; and what it refuses."""

from __future__ import annotations

import json

import pytest
from kineto_jobs import moe_job

from distsim.cli.main import main


@pytest.fixture
def folder(tmp_path):
    def put(job):
        for rank, data in enumerate(job.files):
            (tmp_path / f"kineto_rank{rank}.json").write_bytes(data)
        return [str(tmp_path / f"kineto_rank{rank}.json") for rank in range(len(job.files))]

    return put


def run(capsys, *arguments):
    code = main(["run", *arguments, "--json", "--quiet"])
    out = capsys.readouterr()
    return code, json.loads(out.out) if out.out else None, out.err


def test_all_ranks(folder, capsys):
    job = moe_job(1, 2, 4)
    files = folder(job)
    code, recorded, _ = run(capsys, *files)
    assert code == 0
    assert recorded["ranks"] == 8
    ends = max(one.end for made in job.kernels for one in made) * 1000
    assert recorded["makespan_ps"] >= ends - 20_000_000  # the captures begin 20 us in
    assert any("clocks of the ranks differ" in line for line in recorded["warnings"])
    code, simulated, _ = run(capsys, *files, "--communication", "simulated")
    assert code == 0
    assert simulated["makespan_ps"] != recorded["makespan_ps"]


def test_one_rank_expanded(folder, capsys):
    files = folder(moe_job(1, 2, 4, pipeline=False))
    code, report, _ = run(capsys, files[2], "--topo", "fat_tree", "--ranks", "16")
    assert code == 0
    assert report["ranks"] == 16
    assert any("1 of 8 ranks was captured: all 16 run what rank 2 ran" in line for line in report["warnings"])


@pytest.mark.parametrize(("ranks", "job", "options", "message"), [
    (slice(0, 3), {}, ("--communication", "simulated"), "not captured"),
    (slice(0, 1), {}, ("--topo", "fat_tree"), "sends to or receives from single ranks"),
    (slice(0, 8), {"style": "bare", "pipeline": False}, ("--topo", "fat_tree"), "are not told"),
    (slice(0, 8), {}, ("--topo", "fat_tree", "--ranks", "16"), "8 ranks were captured, not 16"),
])  # fmt: skip
def test_refusals_say_what_is_missing(folder, capsys, ranks, job, options, message):
    code, _, err = run(capsys, *folder(moe_job(1, 2, 4, **job))[ranks], *options)
    assert code in (1, 2)
    assert message in err
    assert "Traceback" not in err


def test_strict_refuses_what_had_to_be_aligned(folder, capsys):
    code, _, err = run(capsys, *folder(moe_job(1, 2, 4)), "--strict")
    assert code == 1
    assert "clocks of the ranks differ" in err
