"""``distsim run --network coflow`` from end to end: folded, saved, refused."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from building import ROOT

from distsim.cli.main import main

TRACE = str(ROOT / "traces" / "llama3_8b_tp8_dp8.json")


def test_a_folded_run_says_so_and_equals_the_whole(tmp_path, capsys):
    made = {}
    for fold in ("true", "false"):
        out = tmp_path / fold
        network = f"coflow:fold={fold}"
        assert main(["run", TRACE, "--topo", "dgx_h100", "--network", network, "-o", str(out), "--json"]) == 0
        made[fold] = json.loads(capsys.readouterr().out)
    assert "64 ranks run 1 program" in made["true"]["provenance"]["inferred"]
    assert made["true"]["counts"]["classes"] == 1
    assert made["false"]["counts"]["classes"] == 64
    few, every = (pq.read_table(tmp_path / fold / "spans.parquet") for fold in ("true", "false"))
    assert set(few["multiplicity"].to_pylist()) == {64}
    assert len(every) == 64 * len(few)
    assert every["end_ps"].to_pylist() == few["end_ps"].to_pylist() * 64
    links = [pq.read_table(tmp_path / fold / "links.parquet") for fold in ("true", "false")]
    assert links[0].equals(links[1])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run", TRACE, "--network", "coflow", "--splits", "2"], "--splits has no effect on coflows"),
        (["run", TRACE, "--network", "coflow", "--collectives", "nccl"], "--collectives has no effect on coflows"),
        (["run", TRACE, "--network", "coflow:fodl=true"], "Nearest: fold"),
        (["run", TRACE, "--network", "coflow:nccl=maybe"], "nccl=maybe"),
        (["collective", "all_reduce", "--ranks", "4", "--network", "coflow"], "coflow is no level"),
        (["compare", TRACE, "--networks", "fluid,coflow"], "distsim run TRACE --network coflow"),
    ],
)
def test_what_coflows_cannot_do_is_refused(capsys, command, said):
    assert main(command) == 2
    assert said in capsys.readouterr().err
