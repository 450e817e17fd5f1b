"""``distsim capacity`` end to end, the study kinds serving and capacity, and what they refuse."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from distsim.cli.capacity import parts
from distsim.cli.main import main
from distsim.report.serving import number

ONE = [
    "capacity", "--model", "llama3-8b", "--cluster", "h100:gpus=8", "--replicas", "1", "--requests", "poisson", "--lengths",
    "fixed:prompt=256,output=16", "--n", "200",
]  # fmt: skip
SLO = ["--slo", "ttft=300ms,tpot=20ms"]


def asked(capsys, *words: str) -> dict:
    """The document."""
    assert main([*words, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["format"] == "distsim-capacity"
    return made


def test_the_first_line_and_the_document_say_the_same(capsys):
    made = asked(capsys, *ONE, *SLO, "--price", "3.6")
    assert main([*ONE, *SLO, "--price", "3.6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == made["answer"]
    mean, low, high = (number(made[f"{name}_per_s"]) for name in ("capacity", "low", "high"))
    assert f"{mean} requests/s ({low} to {high}, 95 %)" in lines[0]
    assert f"limited by {made['limited_by']}" in lines[0]
    assert len(made["seeds"]) == 3
    assert made["capacity_per_s"] == pytest.approx(sum(one["passing_per_s"] for one in made["seeds"]) / 3)
    # the cost is that of one GPU for 1/1000 h in the second in which 16 tokens of every request come
    assert made["cost_per_million_output_tokens"] == pytest.approx(1e-3 / (16 * made["capacity_per_s"]) * 1e6)
    assert sum(" passes " in line or " fails " in line for line in lines) == len(made["trials"])
    assert main([*ONE, *SLO, "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == [made["answer"]]


def test_a_trial_is_a_run_of_distsim_serve(capsys):
    trial = asked(capsys, *ONE, *SLO, "--seeds", "1")["at_capacity"]
    words = ["serve", *ONE[1:], *SLO, "--qps", str(trial["load_per_s"]), "--seed", str(trial["seed"]), "--json"]
    assert main(words) == 0
    served = json.loads(capsys.readouterr().out)
    assert served["latencies"]["ttft_ps"]["p99"] == trial["ttft_p99_ps"]
    assert served["goodput"]["share"] == trial["kept_share"]


def test_capacity_zero_is_an_answer(capsys):
    made = asked(capsys, *ONE, "--slo", "ttft=1us")
    assert made["capacity_per_s"] == 0
    assert "an idle service misses it: P99 TTFT is" in made["answer"]
    made = asked(capsys, *ONE, "--kv-blocks", "4")
    assert "turns away 200 of 200 requests" in made["answer"]
    made = asked(capsys, *ONE, "--slo", "ttft=1us", "--load", "3")
    assert made["copies"] is None
    assert "no number of replicas serves 3 requests/s" in made["answer"]


def test_replicas_for_a_load(capsys):
    made = asked(capsys, *ONE, *SLO, "--load", "200", "--seeds", "2", "--price", "2", "--n", "100")
    assert made["gpus"] == made["copies"] * made["gpus_per_copy"] > 1
    assert main([*ONE, *SLO, "--load", "200", "--seeds", "2", "--n", "100"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == made["answer"]
    assert said[0].startswith(f"{made['copies']} replicas, {made['gpus']} x h100_sxm, serve 200 requests/s")
    made = asked(capsys, *ONE, *SLO, "--load", "2000", "--seeds", "1", "--max-gpus", "2")
    assert made["copies"] is None
    assert "2 replicas, 2 GPUs, do not serve 2000 requests/s" in made["answer"]


def test_deployments_side_by_side(capsys, tmp_path):
    words = [*ONE, *SLO, "--tp", "1,2,3", "--scheduler", "vllm_v1,sarathi:chunk=512", "--seeds", "1", "--workers", "1"]
    words += ["--price", "2", "-o", str(tmp_path / "out")]
    made = asked(capsys, *words)
    assert made["points"] == 6
    assert made["run"] == 4
    assert [(one["kind"], one["count"]) for one in made["reasons"]] == [("plan", 2)]
    table = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [row["capacity_per_s"] for row in table] == [row["capacity_per_s"] for row in made["rows"]]
    best = max(made["rows"], key=lambda row: row["capacity_per_s"])
    assert best in made["front"]
    for row in made["front"]:
        assert not any(one["capacity_per_s"] > row["capacity_per_s"] and one["gpus"] <= row["gpus"] for one in made["rows"])
    for row in made["rows"]:
        assert row["best_for_its_price"] == (not any(
            one["cost_per_million_output_tokens"] < row["cost_per_million_output_tokens"]
            and one["ttft_p99_ps"] < row["ttft_p99_ps"] for one in made["rows"]
        ))  # fmt: skip
    html = (tmp_path / "out" / "pareto.html").read_text()
    assert "http" not in html.replace("http://www.w3.org", "")
    # the alone of them is the same as by itself
    alone = asked(capsys, *ONE, *SLO, "--tp", "2", "--scheduler", "sarathi:chunk=512", "--seeds", "1")
    (same,) = [row for row in made["rows"] if row["tp"] == 2 and row["scheduler"] == "sarathi:chunk=512"]
    assert same["capacity_per_s"] == alone["capacity_per_s"]
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("most: ")
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "tp N does not divide" in said
    assert "$/M output tokens" in said


def test_deployments_of_a_file(capsys, tmp_path):
    file = tmp_path / "deployments.yaml"
    file.write_text("- {tp: 1, kv-blocks: 2}\n- {tp: 2, replicas: 2}\n- {tp: 5}\n- {model: llama3-70b}\n")
    made = asked(capsys, *ONE, *SLO, "--deployments", str(file), "--seeds", "1", "--workers", "1")
    assert [row["capacity_per_s"] > 0 for row in made["rows"]] == [False, True]
    assert [row["gpus"] for row in made["rows"]] == [1, 4]
    assert made["front"] == [made["rows"][1]]
    assert {one["kind"]: one["count"] for one in made["reasons"]} == {"plan": 1, "memory": 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--qps", "4"], "qps fixes the load"),
        (["--concurrency", "4"], "concurrency fixes the load"),
        (["--requests", "static"], "no load to look for"),
        (["--tp", "two"], "is no number"),
        (["--kv-dtype", "fp9"], "is no choice"),
        (["--slo", "ttfd=1s"], "is no objective"),
        (["--seeds", "0"], "no number of seeds"),
        (["--tolerance", "2"], "no tolerance"),
        (["--price", "0"], "no price"),
        (["--load", "0"], "is no load"),
        (["--load", "4", "--tp", "1,2"], "--load takes one deployment"),
        (["--load", "4", "--max-gpus", "0"], "takes 1 GPUs"),
        (["--max-gpus", "4"], "of no effect"),
        (["--workers", "-1"], "no number of processes"),
        (["-o", "somewhere"], "several deployments"),
        (["--deployments", "nowhere.yaml"], "cannot be read"),
        (["--n", "5"], "no load is too high"),
        (["--tp", "1,2", "--requests", "nowhere.csv", "--workers", "1"], "nowhere.csv"),
        (["--model", "llama9"], "llama9"),
        (["--gpu", "h101"], "h101"),
    ],
)
def test_refusals_are_words(capsys, words, said):
    code = main([*ONE, *words])
    out, err = capsys.readouterr()
    assert code in (1, 2)
    assert said in out + err
    assert "Traceback" not in err


def test_no_list_of_deployments(capsys, tmp_path):
    file = tmp_path / "deployments.yaml"
    for text in ("tp: 4\n", "[]\n", "- 3\n", "{"):
        file.write_text(text)
        assert main([*ONE, "--deployments", str(file)]) == 2
    file.write_text("- {tp: 4}\n")
    assert main([*ONE, "--deployments", str(file), "--tp", "1,2"]) == 2
    file.write_text("- {tpp: 4}\n")
    assert main([*ONE, "--deployments", str(file)]) == 2
    assert "Nearest: tp" in capsys.readouterr().err


def test_values_and_options_are_told_apart():
    assert parts("vllm_v1,sarathi:chunk=512,max_num_seqs=64,orca") == ["vllm_v1", "sarathi:chunk=512,max_num_seqs=64", "orca"]
    assert parts("h100:gpus=8,nodes=2,a100:gpus=8") == ["h100:gpus=8,nodes=2", "a100:gpus=8"]
    assert parts("1, 2,,4") == ["1", "2", "4"]


STUDY = """
kind: {kind}
base: {{model: llama3-8b, cluster: "h100:gpus=8", replicas: 1, requests: "poisson{rate}", lengths: "fixed:prompt=64,output=8",
  n: 100, slo: "ttft=100ms,tpot=20ms", price: 2.0{more}}}
grid: {{tp: [1, 2, 3], scheduler: [vllm_v1, sarathi]}}
"""


@pytest.mark.parametrize(("kind", "rate", "more"), [("serving", ":qps=20", ""), ("capacity", "", ", seeds: 1")])
def test_services_in_a_sweep(capsys, tmp_path, kind, rate, more):
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.format(kind=kind, rate=rate, more=more))
    for name, workers in (("a", "1"), ("b", "2" if kind == "serving" else "1")):
        assert main(["sweep", str(study), "-o", str(tmp_path / name), "--workers", workers]) == 0
    for file in ("results.parquet", "pareto.html", "summary.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    rows = pq.read_table(tmp_path / "a" / "results.parquet").to_pylist()
    assert [(row["tp"], row["scheduler"]) for row in rows] == [(tp, s) for tp in (1, 2) for s in ("vllm_v1", "sarathi")]
    assert all(row["failed"] is None and row["gpus"] == row["tp"] for row in rows)
    if kind == "serving":
        assert all(row["finished"] == 100 and 0 < row["slo_share"] <= 1 for row in rows)
        assert all(row["tpot_p50_ps"] <= row["tpot_p99_ps"] and row["cost_per_million_output_tokens"] > 0 for row in rows)
    capsys.readouterr()
    assert main(["sweep", str(study), "-o", str(tmp_path / "a")]) == 0
    assert "nothing was left to run" in capsys.readouterr().err


def test_the_shipped_study_is_one(capsys):
    assert main(["sweep", "serving_h100", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["points"] == found["to_run"] == 18
