"""Recommendation models: sizes of MLPerf's, the interaction's width, and refusals."""

from __future__ import annotations

import pytest
import yaml

from distsim.errors import ConfigError, UnknownNameError
from distsim.models.dlrm import Dlrm, dlrm, dlrms

SMALL = {"name": "small", "dense": 4, "dim": 8, "tables": [{"rows": 10, "pooling": 3}, {"rows": 20, "count": 2}],
         "bottom": [16, 8], "top": [32, 1]}  # fmt: skip


def test_mlperf_models():
    one = dlrm("DLRM_Criteo")
    assert one.features == one.lookups == 26
    # MLPerf's own figures: 187.77 million rows, 479 inputs of the top MLP, 2.37 million dense weights
    assert one.embedding_parameters() == 187_767_399 * 128
    assert one.interaction_width() == 479
    assert one.dense_parameters() == pytest.approx(2.37e6, rel=0.001)
    two = dlrm("dlrm-dcnv2")
    assert two.features == 26
    assert two.lookups == 214
    assert two.embedding_parameters() == 204_184_588 * 128
    assert two.interaction_width() == 27 * 128
    assert two.cross_parameters() == 3 * (2 * 3456 * 512 + 3456)
    assert all(one.source for one in dlrms().values())


def test_counts_by_hand():
    one = Dlrm(**SMALL)
    assert (one.features, one.lookups, one.embedding_parameters()) == (3, 5, 400)
    assert one.interaction_width() == 8 + 6  # four vectors make six pairs
    mlps = 4 * 16 + 16 * 8 + 14 * 32 + 32
    assert one.dense_parameters() == mlps + 16 + 8 + 32 + 1
    assert one.parameters() == 400 + one.dense_parameters()
    assert one.flops_per_sample() == 6 * mlps + 6 * 4 * 4 * 8
    assert Dlrm(**{**SMALL, "interaction": "cat"}).interaction_width() == 32


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bottom": [16, 9]}, "the bottom MLP ends at 9, embeddings are 8 wide"),
        ({"interaction": "dcn"}, "cross_layers and cross_rank"),
        ({"cross_layers": 2, "cross_rank": 4}, "cross_layers and cross_rank"),
        ({"top": [0, 1]}, "without outputs"),
        ({"tables": []}, "tables"),
        ({"width": 3}, "width"),
    ],
)
def test_bad_models_are_refused_in_words(tmp_path, change, told):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **change}))
    with pytest.raises(ConfigError, match=told) as failure:
        dlrm(str(file))
    assert str(file) in str(failure.value)


@pytest.mark.parametrize("text", ["", "- 7", "{"])
def test_bad_files_are_refused_in_words(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"cannot be read|no recommendation model"):
        dlrm(str(file))


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match="dlrm-dcnv3") as failure:
        dlrm("dlrm-dcnv3")
    assert failure.value.near[0] == "dlrm-dcnv2"
