"""distsim validate: parity with ASTRA-sim (required in CI), the machine-readable form, bad data."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest

from distsim.cli.main import main

HEADER = (
    "collective,size_bytes,npus,topology,npus_per_dim,bandwidth_GBps,latency_ns,algorithm,splits,backend,active_chunks,"
    "endpoint_delay,local_mem_bw,sched,coll_opt,queues_per_dim,cycles,cycles_min\n"
)
#: the worked example of the specification, with a wrong and a refused row
GOOD = "all_reduce,1048576,8,Ring,8,50.0,500.0,ring,4,unaware,1,10,1600,LIFO,localBWAware,1,64440,64440\n"
WRONG = GOOD.replace("64440,64440", "64441,64440")
REFUSED = GOOD.replace(",8,Ring,8,", ",6,Ring,6,").replace(",ring,", ",halvingDoubling,")


def test_all_of_the_reference_is_met(astra_reference, capsys):
    words = ["validate", "astra", "--data", str(astra_reference), "--json", "--fail-under", "matched_fraction=1"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["matched"] == found["rows"] == found["expressed"] >= 744
    assert found["groups"]["micro"]["matched"] == found["groups"]["micro"]["rows"] >= 725
    assert found["groups"]["llm"]["matched"] == found["groups"]["llm"]["rows"] >= 19


def test_report_form_and_fail_under(tmp_path, capsys):
    with gzip.open(tmp_path / "microbenchmarks.csv.gz", "wt") as file:
        file.write(HEADER + GOOD + WRONG + REFUSED)
    words = ["validate", "astra", "--data", str(tmp_path), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"suite", "rows", "expressed", "matched", "metrics", "groups", "worst", "refused"}
    assert (found["rows"], found["expressed"], found["matched"]) == (3, 2, 1)
    assert found["groups"] == {"micro": {"rows": 3, "matched": 1}}
    assert list(found["refused"].values()) == [1]
    assert len(found["worst"]) == 2
    assert main([*words, "--fail-under", "matched=1"]) == 0
    capsys.readouterr()
    assert main([*words, "--fail-under", "matched=2"]) == 1
    assert "matched is 1, wanted at least 2" in capsys.readouterr().err
    assert main(["validate", "astra", "--data", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == "astra: 1 of 3 reference rows matched"
    assert "off by" in text


def test_llm_folder_without_micro_benchmarks(astra_reference, tmp_path, capsys):
    folder = tmp_path / "llm" / "gpt8_dp8"
    shutil.copytree(astra_reference / "llm" / "gpt8_dp8", folder)
    folder.chmod(0o755)
    assert main(["validate", "astra", "--data", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["groups"]) == ["llm"]
    assert found["matched"] == found["rows"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validate", "astral", "--data", "."], "unknown suite 'astral'"),
        (["validate", "astra", "--data", "/nowhere"], "is not a folder"),
        (["validate", "astra", "--data", "EMPTY"], "holds no microbenchmarks.csv"),
        (["validate", "astra", "--data", "ROWS", "--fail-under", "nothing=1"], "unknown metric 'nothing'"),
        (["validate", "astra", "--data", "ROWS", "--fail-under", "matched"], "not METRIC=VALUE"),
    ],
)
def test_bad_usage(tmp_path, capsys, words, message):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "ROWS").mkdir()
    (tmp_path / "ROWS" / "microbenchmarks.csv").write_text(HEADER + GOOD)
    words = [str(tmp_path / word) if word in ("EMPTY", "ROWS") else word for word in words]
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_malformed_rows_are_counted_not_fatal(tmp_path, capsys):
    (tmp_path / "microbenchmarks.csv").write_text(HEADER + GOOD + GOOD.replace("1048576", "many"))
    assert main(["validate", "astra", "--data", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["matched"], sum(found["refused"].values())) == (2, 1, 1)
