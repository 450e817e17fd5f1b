"""Measured memory of published runs, within bars by family; and the rows as model, plan, GPU and stack."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict

import pytest
from building import reference_folder

from distsim.errors import ConfigError
from distsim.validation import training_rows as rows
from distsim.workload.training.memory import memory_of
from distsim.workload.training.stack import stack

GIB = 1 << 30


@pytest.fixture(scope="module")
def published():
    with (reference_folder("training") / "published_training_dev.csv").open() as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize(
    ("family", "bar", "least"), [("simumax-b200", 0.01, 20), ("torchtitan", 0.04, 9), ("bigscience", 0.06, 20)]
)
def test_measured_memory(published, family, bar, least):
    errors = []
    for row in published:
        if row["family"] == family and row["memory_gib"]:
            case = rows.case_of(row)
            memory = memory_of(case.model, case.plan, stack(case.stack), case.gpu)
            told = max(getattr(stage, rows.memory_kind_of(row)) for stage in memory.stages) / GIB
            errors.append(abs(told / float(row["memory_gib"]) - 1))
    assert len(errors) >= least
    assert sum(errors) / len(errors) <= bar


def test_complete_rows_are_expressed(published):
    told, expressed = defaultdict(int), defaultdict(int)
    for row in published:
        if row["complete"] in ("yes", "nearly"):
            told[row["family"]] += 1
            try:
                rows.case_of(row)
            except ConfigError:
                continue
            expressed[row["family"]] += 1
    assert sum(expressed.values()) >= 0.9 * sum(told.values())
    assert all(expressed[family] for family in told)


def test_reasons_are_given_for_the_others(published):
    for row in published:
        try:
            rows.case_of(row)
        except ConfigError as error:
            assert row["id"] in str(error)  # noqa: PT017
            assert row["complete"] == "no"


def test_single_node_rows(published):
    file = reference_folder("training") / "vtrain_single_node_dev.csv.gz"
    with gzip.open(file, "rt") as lines:
        found = [rows.case_of(row) for row in csv.DictReader(lines)]
    assert len(found) > 800
    assert {case.stack for case in found} == {"megatron_deepspeed_plain"}
    assert not any(case.assumptions for case in found)


def test_parameters_are_those_that_rows_state(published):
    """MPT's to four digits; others as rounded by their authors."""
    for row in published:
        if row["family"] == "llm-foundry":
            assert rows.model_of(row).parameters / 1e9 == pytest.approx(float(row["params_b"]), rel=1e-4, abs=6e-5)


def test_unstated_things_are_assumed_aloud(published):
    for row in published:
        if row["complete"] != "yes" and row["layers"] and row["tp"]:
            assert rows.case_of(row).assumptions, row["id"]
