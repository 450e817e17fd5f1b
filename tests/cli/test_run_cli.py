"""``distsim run`` and ``distsim demo`` from end to end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest

from distsim.cli.main import main
from distsim.cli.progress import Progress
from distsim.cli.shipped import resolve, shipped
from distsim.run_spec import RunSpec

NODES = [
    {"op": "compute", "name": "a", "duration": "100us", "after": []},
    {"op": "all_reduce", "name": "sum", "bytes": 4_000_000, "group": "dp", "after": ["a"]},
    {"op": "compute", "name": "b", "duration": "30us", "after": ["a"]},
    {"op": "compute", "name": "c", "duration": "10us", "after": ["sum", "b"]},
]
ASTRA = ["--astra-workload", "w", "--astra-network", "no.yml", "--astra-system", "no.json"]
RING = ["--topo", "ring:bandwidth=50GB/s,latency=500ns", "--network", "analytic"]


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """100 us of compute, an all_reduce of 81 us beside 30 us more, 10 us: 191 us."""
    programs = [{"name": "rank", "ranks": "all", "nodes": NODES}]
    document = {"format": "distsim-trace/1", "ranks": 2, "groups": {"dp": {"size": 2, "stride": 1}}, "programs": programs}
    path = tmp_path / "two.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_the_answer_comes_first(trace, capsys):
    assert main(["run", trace, *RING]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == (
        "step 191 us on 2 ranks: 73 % compute, 27 % exposed communication (dp all_reduce, ring links up to 42 % busy), 0 % idle"
    )
    assert "hosts=2 inferred from 2 ranks" in out


def test_quiet_is_one_line(trace, capsys):
    assert main(["run", trace, *RING, "--quiet"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_json_is_one_document_with_exact_numbers(trace, capsys):
    assert main(["run", trace, *RING, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["makespan_ps"], made["makespan_ns"]) == (191_000_000, 191_000)
    assert (made["ranks"], made["finish_ns"]) == (2, [191_000] * 2)
    parts = made["breakdown"]["per_rank_ps"]
    assert (parts["compute"], parts["exposed"], parts["hidden"]) == ([140_000_000] * 2, [51_000_000] * 2, [30_000_000] * 2)
    assert sum(made["breakdown"]["fraction"].values()) == pytest.approx(1)
    (row,) = made["communication"]
    assert (row["operation"], row["group"], row["ranks"]) == ("all_reduce", "dp", [2])
    assert (row["count"], row["bytes"], row["exposed_ps"]) == (1, 8_000_000, 51_000_000)
    assert made["critical_path_ps"] == {"compute": 110_000_000, "all_reduce": 81_000_000}
    assert made["links"][0]["busy_ps"] == 80_000_000
    assert made["warnings"] == []
    assert made["spec"]["network"] == "analytic"
    assert made["provenance"]["inputs"][trace]
    assert made["counts"]["nodes"] == 8
    assert "profile" not in made


def test_the_command_in_the_document_repeats_the_run(trace, capsys):
    main(["run", trace, *RING, "--json", "--splits", "2", "--repair"])
    first = json.loads(capsys.readouterr().out)
    words = shlex.split(first["command"])
    assert words[:3] == ["distsim", "run", trace]
    assert main([*words[1:], "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again.pop("provenance")["inferred"] == []  # what was inferred is written out now
    first.pop("provenance")
    assert again == first


def test_astra_semantics_give_its_figures(trace, capsys):
    assert main(["run", trace, *RING, "--profile", "astra", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["profile"]["finish_ns"] == made["finish_ns"]
    assert len(made["profile"]["exposed_ns"]) == 2
    assert made["spec"]["profile"] == "astra"
    assert "--profile astra" in made["command"]
    assert main(["run", trace, *RING, "--profile", "astra"]) == 0
    assert "\nprofile: finish_ns " in capsys.readouterr().out


def test_astra_sims_own_files(trace, tmp_path, capsys):
    (tmp_path / "net.yml").write_text("topology: [Ring]\nnpus_count: [2]\nbandwidth: [50.0]\nlatency: [500.0]\n")
    (tmp_path / "sys.json").write_text(json.dumps({"all-reduce-implementation": ["ring"], "preferred-dataset-splits": 1}))
    assert main(["convert", trace, str(tmp_path / "et" / "w")]) == 0
    capsys.readouterr()
    files = ["--astra-workload", str(tmp_path / "et" / "w"), "--astra-network", str(tmp_path / "net.yml")]
    files += ["--astra-system", str(tmp_path / "sys.json")]
    found = {}
    for level in (None, "analytic", "chunk"):
        assert main(["run", *files, *(["--network", level] if level else []), "--json"]) == 0
        found[level] = json.loads(capsys.readouterr().out)
    assert found[None]["profile"] == found["analytic"]["profile"]
    assert [made["provenance"]["network"] for made in found.values()] == ["astra unaware", "astra unaware", "astra aware"]
    words = shlex.split(found["chunk"]["command"])
    assert main([*words[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found["chunk"]


def test_a_folder_is_written_and_written_again(trace, tmp_path, capsys):
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["run", trace, *RING, "-o", str(out)]) == 0
    assert (out / "spans.parquet").is_file()
    assert json.loads((out / "summary.json").read_text())["answer"] == capsys.readouterr().out.splitlines()[0]


def test_every_field_of_the_specification_is_an_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "--help"])
    assert stop.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for name, field in RunSpec.model_fields.items():
        if name != "trace":
            assert f"--{name.replace('_', '-')}" in told
            assert " ".join((field.description or "").split()) in told


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run"], 2, "no trace was given"),
        (["run", "nowhere.json"], None, "nowhere.json"),
        (["run", "TRACE", "--splits", "0"], 2, "--splits: '0': Input should be greater than or equal to 1"),
        (["run", "TRACE", "--splits", "many"], 2, "--splits: 'many'"),
        (["run", "TRACE", "--topo", "fat_treee"], 2, "fat_tree"),
        (["run", "TRACE", "--topo", "ring:hosts=1"], 2, "1 host"),
        (["run", "TRACE", "--network", "chunky"], 2, "chunk"),
        (["run", "TRACE", "--algorithm", "rign"], None, "ring"),
        (["run", "TRACE", "--peak", "1TFLOPS"], 2, "--compute roofline"),
        (["run", "TRACE", "--endpoint-delay", "soon"], 2, "'soon' is not a time"),
        (["run", "TRACE", "-o", "TRACE"], 2, "is a file"),
        (["run", "TRACE", "-o", "TRACE/out"], 2, "cannot be written"),
        (["run", "TRACE", "-o", "FULL"], 2, "something else"),
        (["run", "--astra-workload", "w"], 2, "--astra-network and --astra-system missing"),
        (["run", *ASTRA, "--splits", "2"], 2, "--splits: ASTRA-sim's files say that already"),
        (["run", "TRACE", *ASTRA], 2, "TRACE: ASTRA-sim's files say that already"),
        (["run", *ASTRA, "--profile", "native"], 2, "--profile native"),
        (["run", *ASTRA], 2, "no.yml"),
    ],
)
def test_faults_end_with_one_message(trace, tmp_path, capsys, words, code, said):
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes").write_text("mine")
    words = [word.replace("TRACE", trace).replace("FULL", str(full)) for word in words]
    found = main(words)
    captured = capsys.readouterr()
    assert found in ((1, 2) if code is None else (code,))
    assert captured.err.startswith("distsim: ")
    assert said in captured.err
    assert captured.out == ""
    assert sorted(os.listdir(tmp_path)) == ["full", "two.json"]


def test_shipped_traces_go_by_their_name(tmp_path, monkeypatch):
    name = "llama3_8b_tp8_dp8"
    monkeypatch.chdir(tmp_path)
    for text in (name, f"{name}.json", f"traces/{name}.json"):
        assert resolve(text) == str(shipped()[name])
    assert resolve("other") == "other"
    (tmp_path / f"{name}.json").write_text("{}")  # what lies here goes before
    assert resolve(f"{name}.json") == f"{name}.json"
    assert resolve(name) == name


def test_demo_runs_and_says_how(capsys):
    assert main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step ")
    assert "on 64 ranks" in lines[0]
    assert lines[-1] == "the same by hand: distsim run llama3_8b_tp8_dp8 --topo fat_tree"


def test_a_run_imports_no_more_than_it_needs(trace):
    run = f"from distsim.cli.main import main; main({['run', trace, *RING]!r})"
    code = f"import sys; {run}; print(*sorted(sys.modules), file=sys.stderr)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert not {"pyarrow", "networkx", "rich", "matplotlib"} & set(modules)


def test_interrupted_runs_leave_nothing(tmp_path):
    """The results of a run are written under another name first; an interrupt at that moment leaves neither."""
    code = (
        "import sys, time\n"
        "from distsim.report import folder\n"
        "def slow(*_): print('writing', flush=True); time.sleep(60)\n"
        "folder.write_timeline = slow\n"
        "from distsim.cli.main import main\n"
        "sys.exit(main(['run', 'pipeline_send_recv', '--network', 'analytic', '-o', sys.argv[1]]))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "interrupted; nothing was written" in err
    assert os.listdir(tmp_path) == []


class Screen(StringIO):
    """A stream that may be a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("terminal", "expected"),
    [
        (True, "\r\x1b[2Ksimulating 25 %, about 9 s left\r\x1b[2Ksimulating 50 %, about 6 s left\r\x1b[2K"),
        (False, "simulating 90 %, about 1 s left\n"),
    ],
)
def test_progress_keeps_quiet_at_first_and_then_says_how_long(terminal, expected):
    """Told at these times these fractions; a terminal hears after 2 s, a file after 10 s."""
    clock = [0.0]
    screen = Screen(terminal)
    told = [(0.5, 0.0), (3.5, 0.25), (3.6, 0.26), (6.5, 0.5)] if terminal else [(0.5, 0.0), (3.0, 0.25), (11.3, 0.9), (12.0, 1)]
    with Progress(screen, lambda: clock[0]) as progress:
        progress(None, "reading")
        for clock[0], fraction in told:
            progress(fraction, "simulating")
    assert screen.getvalue() == expected


def test_progress_without_a_fraction():
    screen = Screen(True)
    clock = [0.0]
    with Progress(screen, lambda: clock[0]) as progress:
        clock[0] = 5.0
        progress(None, "reading big.json")
    assert screen.getvalue() == "\r\x1b[2Kreading big.json\r\x1b[2K"


def test_help_is_quick():
    """The bar is 0.2 s; a loaded machine gets five times that."""
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "distsim", "--help"], capture_output=True, check=True)
        best = min(best, time.perf_counter() - start)
    assert best < 1.0
