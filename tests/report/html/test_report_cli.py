"""``distsim report`` from the command line."""

from __future__ import annotations

import json

import pytest

from distsim.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("results") / "moe"
    assert main(["run", "moe_all_to_all", "--topo", "fat_tree", "-o", str(place), "--quiet"]) == 0
    return place


def test_it_writes_report_html_where_one_is(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("step ")
    assert "report in report.html" in out
    assert (tmp_path / "report.html").read_text(encoding="utf-8").endswith("</html>\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_json_is_one_document_of_what_was_written(folder, tmp_path, capsys):
    target = tmp_path / "a.html"
    assert main(["report", str(folder), "-o", str(target), "--title", "A <title>", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["format"] == "distsim-report"
    assert made["bytes"] == target.stat().st_size
    assert made["title"] == "A <title>"
    assert made["sections"][0] == "breakdown"
    assert made["kinds"] == ["distsim-results"]
    assert "<title>A &lt;title&gt;</title>" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no such folder"),
        (["{folder}x"], "Nearest: {folder}"),
        (["{folder}/summary.json"], "is a file, no results folder"),
        (["{tmp}"], "is no results folder of distsim"),
        (["{tmp}/broken"], "is no results folder of distsim"),
        (["{tmp}/other"], "has results of a format that has no report: 'something'"),
        (["{folder}", "{folder}", "{folder}"], "3 folders were given"),
        (["{folder}", "-o", "{tmp}/page.pdf"], "a name that ends in .html"),
        (["{folder}", "-o", "{tmp}/none/page.html"], "there is no folder"),
        (["{folder}", "-o", "{tmp}/folder.html"], "is a folder"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(folder, tmp_path, capsys, words, said):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "summary.json").write_text("{")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").write_text('{"format": "something"}')
    (tmp_path / "folder.html").mkdir()
    before = sorted(entry.name for entry in tmp_path.iterdir())
    names = {"folder": str(folder), "tmp": str(tmp_path)}
    target = [] if "-o" in words else ["-o", str(tmp_path / "page.html")]
    assert main(["report", *(word.format(**names) for word in words), *target]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said.format(**names) in told.err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


def test_a_damaged_table_is_refused(folder, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "spans.parquet").write_bytes(b"no parquet")
    assert main(["report", str(copy), "-o", str(tmp_path / "a.html")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_help_teaches_by_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", "--help"])
    assert ended.value.code == 0
    assert "distsim report out -o step.html" in capsys.readouterr().out
