"""A study's folder as a page again."""

from __future__ import annotations

import json

import pytest

from distsim.cli.main import main
from distsim.errors import ConfigError
from distsim.report.html.kinds import page_of
from distsim.report.ui.shelf import Shelf
from distsim.studies.reopen import reopen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("shelf") / "bandwidth"
    assert main(["study", "bandwidth", "--gpus", "h100_sxm", "-o", str(place), "--quiet"]) == 0
    return place


def test_the_report_is_the_page_that_the_study_wrote(folder, tmp_path):
    assert main(["report", str(folder), "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_bytes() == (folder / "page.html").read_bytes()
    assert page_of([str(folder)], "mine").title == "mine"


def test_what_an_older_distsim_wrote_is_refused_with_its_own_page(folder, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    summary = json.loads((folder / "summary.json").read_text())
    del summary["shown"]
    (old / "summary.json").write_text(json.dumps(summary))
    (old / "results.parquet").write_bytes((folder / "results.parquet").read_bytes())
    with pytest.raises(ConfigError, match="does not hold what its page shows") as error:
        reopen(str(old))
    assert "page.html" in error.value.fix
    assert "distsim study bandwidth" in error.value.fix
    (old / "results.parquet").write_bytes(b"no")
    with pytest.raises(ConfigError, match="cannot be read"):
        reopen(str(old))


def test_two_studies_are_not_compared(folder):
    with pytest.raises(ConfigError, match="no page side by side"):
        page_of([str(folder), str(folder)])


def test_the_shelf_lists_it(folder):
    (entry,) = Shelf(folder.parent).entries()
    assert (entry.name, entry.kind, entry.about, entry.knobs) == ("bandwidth", "study", "bandwidth", False)
    assert entry.answer.startswith("of peak memory bandwidth")
