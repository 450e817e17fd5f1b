"""distsim study on the command line: text, JSON, page, folder, help, refusals; a small golden."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distsim.cli.main import main
from distsim.cli.study import STUDIES

RATIO = ["ratio", "--model", "llama3-8b", "--tp", "4", "--zero", "3", "--seq", "512", "--gpus", "8", "--workers", "1",
         "--topology", "dgx_h100:gpus_per_node=4", "--networks", "analytic,cut_through", "--vary", "bandwidth=1,4"]  # fmt: skip
BANDWIDTH = ["bandwidth", "--gpus", "h100_sxm", "--providers", "roofline,stream", "--classes", "gemm,norm",
             "--sizes", "1,64,4096"]  # fmt: skip
GOLDEN = """\
of peak memory bandwidth at most (roofline): gemm 100 %, norm 100 %; none of 9 answers implies more than 100 %

highest share of peak memory bandwidth over sizes and GPUs
  class  roofline  stream
  gemm      100 %       -
  norm      100 %    75 %
  (! more than memory gives; -: the provider does not serve the class)
  (gemm: the MLP's first product, of the tokens)
  (norm: a norm of the tokens: read and write)

roofline on h100_sxm, by tokens
  class      1     64  4,096
  gemm   100 %  100 %   15 %
  norm   100 %  100 %  100 %
"""


def run(capsys, *words):
    code = main(["study", *words])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_golden(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = run(capsys, *BANDWIDTH)
    assert (code, err) == (0, "")
    head, _, rest = out.partition("\n  share: ")
    assert head == GOLDEN
    assert rest.startswith("bytes that a kernel has to move")


def test_quiet_is_the_first_line(capsys):
    _, whole, _ = run(capsys, *BANDWIDTH)
    assert run(capsys, *BANDWIDTH, "--quiet")[1] == whole.splitlines()[0] + "\n"


def test_ratio_as_text_and_document(capsys):
    code, out, _ = run(capsys, *RATIO)
    assert code == 0
    assert out.startswith("llama3-8b on 8 GPUs, compute/communication")
    assert "more than 5 % off cut_through: analytic never" in out.splitlines()[0]
    code, out, _ = run(capsys, *RATIO, "--json")
    made = json.loads(out)
    assert made["format"] == "distsim-study"
    assert [row["value"] for row in made["rows"]] == ["1", "4"]
    assert made["departures"][0]["departs"] == "never"
    assert made["spec"]["vary"] == {"bandwidth": ["1", "4"]}
    assert made["command"] == "distsim study " + " ".join(RATIO)


def test_a_folder_holds_the_rows_twice_and_the_page(capsys, tmp_path):
    folder = tmp_path / "out"
    assert run(capsys, *BANDWIDTH, "-o", str(folder))[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["page.html", "results.csv", "results.parquet", "summary.json"]
    table = pq.read_table(folder / "results.parquet")
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == table.num_rows == 9
    assert [float(row["bandwidth_share"]) for row in rows] == table["bandwidth_share"].to_pylist()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["above_peak"] == 0
    assert "rows" not in summary
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(capsys, *BANDWIDTH, "--json", "-o", str(folder))[0] == 0  # into the folder of an earlier run
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_page_stands_alone(capsys, tmp_path):
    page = tmp_path / "page.html"
    assert run(capsys, *BANDWIDTH, "-o", str(page))[0] == 0
    text = page.read_text()
    assert "of peak memory bandwidth at most" in text
    assert "src=" not in text.replace("data:", "").split("<script type")[0]
    assert 'id="charts-data"' in text
    assert "distsim study bandwidth --gpus h100_sxm" in text


@pytest.mark.parametrize("name", STUDIES)
def test_help_teaches_by_examples(name, capsys):
    with pytest.raises(SystemExit) as end:
        main(["study", name, "--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert out.count(f"distsim study {name}") >= 2
    assert "--json" in out


def test_help_of_all_imports_no_study():
    code = "import sys; from distsim.cli.main import parser_for; parser_for(['study', '--help']); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("numpy", "pydantic", "distsim.studies"):
        assert f"'{heavy}'" not in modules


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bandwidth", "--sizes", "1,x"], "no number of tokens"),
        (["bandwidth", "--dtype", "bf61"], "bf16"),
        (["bandwidth", "--gpus", ","], "nothing is named"),
        (["ratio", "--gpus", "0"], "no number of GPUs"),
        (["ratio", "--workers", "-1"], "no number of processes"),
        (["ratio", "--networks", "fluid"], "two or more"),
        (["ratio", "--networks", "fluid,fluid"], "named twice"),
        (["ratio", "--topology", "rails", "--topology", "rails"], "named twice"),
        (["ratio", "--vary", "bandwith=1"], "bandwidth"),
        (["ratio", "--tolerance", "0"], "no tolerance"),
        (["ratio", "--model", "llama3-70", "--vary", "seq=512"], "llama3-70b"),
        (["ratio", "-o", "/nowhere/at/all.html"], "no folder"),
        (["tradeoff", "--data", "/nowhere"], "not a folder"),
        (["tradeoff", "--data", ".", "--only", ","], "nothing is named"),
        (["tradeoff", "--data", ".", "--only", "simgrd"], "simgrid"),
    ],
)
def test_refusals_say_what_to_do(words, said, capsys):
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert err.startswith("distsim: ")
    assert said in err


def test_a_folder_of_something_else_is_left_alone(capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = run(capsys, *BANDWIDTH, "-o", str(tmp_path))
    assert code == 2
    assert "mine.txt" in err
    assert [path.name for path in Path(tmp_path).iterdir()] == ["mine.txt"]


def test_an_unknown_study_is_usage(capsys):
    with pytest.raises(SystemExit) as end:
        main(["study", "ratios"])
    assert end.value.code == 2
