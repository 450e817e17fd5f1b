"""distsim validate vidur: every run of the reference, runs worked out by hand, bad data."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from building import reference_folder

from distsim.cli.main import main
from distsim.errors import DistsimError
from distsim.validation import vidur

HEADER = "id,arrived_at,num_prefill_tokens,num_decode_tokens,replica,prefill_completed_at,completed_at,num_restarts\n"
LINEAR = (
    "attn_pre_proj", "attn_post_proj", "attn_rope", "attn_kv_cache_save", "input_layernorm", "mlp_up_proj", "mlp_down_proj",
    "mlp_act", "post_attention_layernorm", "add", "all_reduce", "send_recv",
)  # fmt: skip
STEP = 0.352  #: s of an iteration of prompts or generation alone: 32 layers, 11 operators of 1 ms


def _write(folder, rows, *, name="run", table="Llama-2-7b-hf_a100_tp1_pp1_a100_dgx_mt4096", **config):
    """A folder of the suite's layout, with durations of 1 ms for every operator."""
    result = {"num_blocks": 7424.0, "max_batch_size": 29, "cpu_run_s": 2.0}
    config = {"name": name, "model": "Llama-2-7b-hf", "device": "a100", "scheduler": "vllm", "n": len(rows)} | config
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps({**result, "config": config}))
    with gzip.open(folder / name / "requests.csv.gz", "wt") as file:
        file.write(HEADER + "".join(f"{n},{','.join(map(str, row))}\n" for n, row in enumerate(rows)))
    if table:
        (folder / "tables").mkdir(exist_ok=True)
        grid = np.arange(65) * 64
        np.savez(
            folder / "tables" / f"{table}.npz", **{op: np.ones(4097) for op in LINEAR}, attn_prefill=np.ones((65, 4097)),
            attn_decode=np.ones((129, 65)), attn_prefill_kv=grid, attn_decode_kv=grid,
        )  # fmt: skip
    return ["validate", "vidur", "--data", str(folder), "--quiet"]


def _found(words, capsys, code=0):
    assert main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def _runs():
    try:
        return sorted(path.parent for path in reference_folder("serving").glob("vidur/*/result.json"))
    except pytest.skip.Exception:
        return []


@pytest.mark.parametrize("folder", _runs(), ids=lambda folder: folder.name)
def test_every_request_of_every_run(folder, serving_reference):
    run = vidur.read(folder, serving_reference / "vidur")
    outcome = vidur.compare(run)
    assert outcome.matched == outcome.requests == len(run.table) >= 200
    assert outcome.error <= vidur.TOLERANCE


def test_the_reference_is_there(serving_reference):
    assert len(list(serving_reference.glob("vidur/*/result.json"))) >= 11


def test_a_run_worked_out_by_hand(tmp_path, capsys):
    """One iteration for the first prompt, one for the second, which comes meanwhile; then both generate."""
    rows = [(0.0, 10, 3, 0, STEP, 4 * STEP, 0), (0.1, 20, 2, 0, 2 * STEP, 3 * STEP, 0)]
    found = _found(_write(tmp_path, rows), capsys)
    assert (found["rows"], found["expressed"], found["matched"], found["refused"]) == (1, 1, 1, {})
    assert found["metrics"]["requests_matched"] == found["metrics"]["requests"] == 2
    assert found["metrics"]["worst_error"] < 1e-12
    group = found["groups"]["run"]
    assert group["times_faster"] == pytest.approx(2.0 / group["cpu_s"])


def test_what_differs_is_told(tmp_path, capsys):
    rows = [(0.0, 10, 3, 0, STEP, 3 * STEP, 0), (0.5, 20, 2, 0, 9.0, 9.0, 1)]
    words = _write(tmp_path, rows)
    found = _found(words, capsys)
    assert (found["rows"], found["matched"], found["metrics"]["requests_matched"]) == (1, 0, 0)
    assert "request 1, 0 restarts instead of 1" in found["worst"][0]["row"]
    assert main([*words, "--fail-under", "matched_fraction=1"]) == 1
    assert "matched_fraction" in capsys.readouterr().err


def test_within_1e_9_and_no_further(tmp_path, capsys):
    _write(tmp_path, [(0.0, 10, 1, 0, STEP, STEP * (1 + 0.9e-9), 0)], name="near")
    found = _found(_write(tmp_path, [(0.0, 10, 1, 0, STEP, STEP * (1 + 1.1e-9), 0)], name="off"), capsys)
    assert (found["rows"], found["matched"]) == (2, 1)
    assert found["worst"][0]["row"].startswith("off")


def test_replicas_that_were_drawn_are_taken_from_the_run(tmp_path, capsys):
    """The same two requests on one replica one after the other, or on two at once."""
    apart = [(0.0, 10, 1, 1, STEP, STEP, 0), (0.0, 10, 1, 0, STEP, STEP, 0)]
    _write(tmp_path, apart, name="apart", gsched="random", replicas=2, sched_args={"max_tokens_in_batch": 10})
    together = [(0.0, 10, 1, 1, STEP, STEP, 0), (0.0, 10, 1, 1, 2 * STEP, 2 * STEP, 0)]
    words = _write(tmp_path, together, name="together", gsched="random", replicas=2, sched_args={"max_tokens_in_batch": 10})
    assert _found(words, capsys)["matched"] == 2


@pytest.mark.parametrize(
    ("scheduler", "arguments", "scheduled"),
    [
        ("vllm", {"batch_size_cap": 1}, (1, 2)), ("vllm", {"num_blocks": 1, "watermark_blocks_fraction": 0}, (1, 2)),
        ("sarathi", {"chunk_size": 10}, (1, 2)), ("orca", {}, (1, 1)), ("orca", {"batch_size_cap": 1}, (1, 2)),
        ("faster_transformer", {"num_blocks": 256}, (1, 2)), ("lightllm", {"max_waiting_iters": 3, "num_blocks": 20}, (1, 2)),
    ],
)  # fmt: skip
def test_arguments_of_the_scheduler_are_kept(tmp_path, capsys, scheduler, arguments, scheduled):
    """Two requests of one token at once: in one batch or one after the other."""
    rows = [(0.0, 10, 1, 0, n * STEP, n * STEP, 0) for n in scheduled]
    found = _found(_write(tmp_path, rows, scheduler=scheduler, sched_args=arguments), capsys)
    assert found["matched"] == 1, found


def test_orca_keeps_to_the_slots_of_the_memory(tmp_path, capsys):
    rows = [(0.0, 10, 1, 0, (1 + n // 29) * STEP, (1 + n // 29) * STEP, 0) for n in range(40)]
    assert _found(_write(tmp_path, rows, scheduler="orca", sched_args={"num_blocks": 256 * 64}), capsys)["matched"] == 1


def test_static_batches_leak_as_vidurs(tmp_path, capsys):
    """Room for two; the first to end of a batch keeps its own for good, so the third and fourth go one by one."""
    steps = [(1, 1, 1), (2, 1, 2), (1, 3, 3), (1, 4, 4)]
    rows = [(0.0, 10, tokens, 0, first * STEP, last * STEP, 0) for tokens, first, last in steps]
    words = _write(tmp_path, rows, scheduler="faster_transformer", sched_args={"num_blocks": 512})
    assert _found(words, capsys)["matched"] == 1


def test_what_neither_serves_is_matched(tmp_path, capsys):
    """A prompt that is longer than any batch; Vidur leaves its times empty or zero."""
    rows = [(0.0, 10, 1, 0, STEP, STEP, 0), (9.0, 5000, 2, 0, "", "0", 0)]
    assert _found(_write(tmp_path, rows), capsys)["matched"] == 1
    served = [(0.0, 10, 1, 0, "", "", 0)]
    found = _found(_write(tmp_path, served, name="other"), capsys)
    assert (found["matched"], found["metrics"]["worst_error"]) == (1, 1.0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"sched_args": {"chunk": 5}}, "sched_args 'chunk' of 'vllm'"), ({"scheduler": "sarathy"}, "unknown Vidur scheduler"),
        ({"model": "Llama-9"}, "unknown model"), ({"device": "h100"}, "no durations"), ({"tp": 2}, "no durations"),
        ({"tp": "two"}, "is not a result"), ({"gsched": "best"}, "unknown router"),
        ({"sched_args": {"batch_size_cap": 0}}, "max_num_seqs"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_expressed_are_counted_by_reason(tmp_path, capsys, config, words):
    found = _found(_write(tmp_path, [(0.0, 10, 1, 0, STEP, STEP, 0)], **config), capsys)
    assert (found["rows"], found["expressed"], found["matched"]) == (1, 0, 0)
    assert words in next(iter(found["refused"]))


def test_unreadable_files_are_counted_too(tmp_path, capsys):
    words = _write(tmp_path, [(0.0, 10, 1, 0, STEP, STEP, 0)], name="json")
    (tmp_path / "json" / "result.json").write_text("{")
    _write(tmp_path, [(0.0, 10, "ten", 0, STEP, STEP, 0)], name="cell")
    _write(tmp_path, [(0.0, 10, 0, 0, STEP, STEP, 0)], name="no_token")
    _write(tmp_path, [], name="column")
    (tmp_path / "column" / "requests.csv.gz").write_bytes(gzip.compress(b"id,arrived_at\n0,1.0\n"))
    found = _found(words, capsys)
    assert (found["rows"], found["expressed"]) == (4, 0)
    assert sum(found["refused"].values()) == 4


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert main(["validate", "vidur", "--data", str(tmp_path)]) == 2
    assert "holds no folder" in capsys.readouterr().err


def test_no_tables(tmp_path, capsys):
    found = _found(_write(tmp_path, [(0.0, 10, 1, 0, STEP, STEP, 0)], table=""), capsys)
    assert "no folder 'tables'" in next(iter(found["refused"]))


def test_configuration_that_nobody_understands_is_shown_with_a_miss(tmp_path, capsys):
    found = _found(_write(tmp_path, [(0.0, 10, 1, 0, 1.0, 1.0, 0)], skew_ms=0.5), capsys)
    assert found["worst"][0]["not_understood"] == "skew_ms"


def test_read_names_what_is_missing(tmp_path):
    with pytest.raises(DistsimError, match="lacks"):
        vidur.read(tmp_path, tmp_path)
