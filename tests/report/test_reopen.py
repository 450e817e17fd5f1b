"""A saved folder is the same Result again, as far as findings go."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from distsim import simulate
from distsim.analysis.summary import summarise
from distsim.cli.shipped import shipped
from distsim.errors import ConfigError
from distsim.report.document import document
from distsim.report.folder import load, save
from distsim.report.reopen import reopen, result_of
from distsim.training import train


@pytest.mark.parametrize("name", ["moe_all_to_all", "pipeline_send_recv", "dp_overlapped_buckets"])
def test_findings_of_a_reopened_run_are_those_of_the_run(name, tmp_path):
    result = simulate(shipped()[name], "fat_tree")
    again = reopen(save(result, tmp_path / "out"))
    assert document(again, summarise(again)) == document(result, summarise(result))
    for column in ("rank", "node", "bytes", "ready", "start", "end", "released_by"):
        assert np.array_equal(getattr(result.spans(), column), getattr(again.spans(), column)), column


def test_a_folded_training_step_too(tmp_path):
    result = train(model="llama3-8b", cluster="dgx_h100:gpus=8", tp=2, global_batch=32, seq=8192).result
    again = reopen(save(result, tmp_path / "out"))
    assert np.array_equal(again.representative, result.representative)
    assert np.array_equal(again.spans().multiplicity, result.spans().multiplicity)
    assert document(again, summarise(again)) == document(result, summarise(result))


def test_a_topology_that_has_changed_is_refused(tmp_path):
    saved = load(save(simulate(shipped()["moe_all_to_all"], "fat_tree"), tmp_path / "out"))
    fewer = dataclasses.replace(saved, links=saved.links.slice(1))
    with pytest.raises(ConfigError, match="links now"):
        result_of(fewer, "out")
