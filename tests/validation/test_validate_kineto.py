"""The suite ``kineto``: replays against measurements, those of the reference and made-up ones."""

from __future__ import annotations

import gzip
import json

import pytest

from distsim.cli.main import main

KERNELS = [("gemm", 7, 10, 40), ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", 9, 30, 90), ("Memcpy DtoH", 7, 100, 105)]


def capture(rank, begin=0, kernels=KERNELS, step="ProfilerStep#3"):
    """Two streams: a gemm beside an all-reduce, then a copy."""
    events = [{"ph": "X", "cat": "user_annotation", "name": step, "pid": 1, "tid": 1, "ts": begin, "dur": 200, "args": {}}]
    for number, (name, stream, start, end) in enumerate(kernels):
        cat = "gpu_memcpy" if name.startswith("Memcpy") else "kernel"
        call = "cudaMemcpyAsync" if cat == "gpu_memcpy" else "cudaLaunchKernel"
        events += [
            {"ph": "X", "cat": "cuda_runtime", "name": call, "pid": 1, "tid": 1, "ts": begin + 1 + 2 * number, "dur": 1,
             "args": {"correlation": number + 1}},
            {"ph": "X", "cat": cat, "name": name, "pid": 0, "tid": stream, "ts": begin + start, "dur": end - start,
             "args": {"device": 0, "stream": stream, "correlation": number + 1, "bytes": 64}},
        ]  # fmt: skip
    return {"distributedInfo": {"rank": rank, "world_size": 2}, "traceEvents": events}


def write(folder, documents, packed=False):
    folder.mkdir(parents=True)
    for rank, document in enumerate(documents):
        data = json.dumps(document).encode()
        name = f"kineto_rank{rank}.json" + (".gz" if packed else "")
        (folder / name).write_bytes(gzip.compress(data) if packed else data)


def measurement(**changes):
    step = {"step": "ProfilerStep#3", "gpu_span_us": 95, "compute_us": 30, "comm_us": 60, "overlap_us": 10}
    return {"steps": [step | changes]}


def run(capsys, *arguments):
    code = main(["validate", "kineto", "--quiet", "--json", *map(str, arguments)])
    out = capsys.readouterr()
    return code, json.loads(out.out) if out.out else None, out.err


def test_definitions(tmp_path, capsys):
    write(tmp_path / "made", [capture(0), capture(1)], packed=True)
    (tmp_path / "reference_measurements.json").write_text(json.dumps({
        "made/kineto_rank0.json.gz": measurement(), "made/kineto_rank1.json.gz": measurement(),
    }))  # fmt: skip
    code, report, _ = run(capsys, "--data", tmp_path)
    assert code == 0
    assert (report["rows"], report["matched"]) == (2, 2)
    assert report["groups"]["made"]["step_time_mape"] == 0
    assert report["metrics"]["traces_within_bars"] == 1
    # without a reference the capture's own measurement serves, and says the same
    (tmp_path / "reference_measurements.json").unlink()
    code, report, _ = run(capsys, "--data", tmp_path)
    assert code == 0
    assert report["matched"] == 2
    assert list(report["groups"]) == ["made (own measurement)"]
    assert report["metrics"]["compute_error"] == 0


def test_only_kernels_of_nccl_count_as_communication(tmp_path, capsys):
    """That is how the reference counts; other kernels that communicate are replayed as they were, and are compute here."""
    write(tmp_path / "made", [capture(0, kernels=[*KERNELS, ("void deep_ep::internode::dispatch<8>(int*)", 11, 120, 150)])])
    told = {"made/kineto_rank0.json": measurement(gpu_span_us=140, compute_us=60)}
    (tmp_path / "reference_measurements.json").write_text(json.dumps(told))
    _, report, _ = run(capsys, "--data", tmp_path)
    assert report["matched"] == 1
    assert report["metrics"]["compute_error"] == 0


@pytest.mark.parametrize(("change", "metric"), [
    ({"gpu_span_us": 99}, "step_time_worst"), ({"comm_us": 65.5}, "exposed_error"), ({"overlap_us": 16}, "overlap_error"),
    ({"compute_us": 36}, "compute_error"),
])  # fmt: skip
def test_what_is_off_is_found(tmp_path, capsys, change, metric):
    write(tmp_path / "made", [capture(0)])
    (tmp_path / "reference_measurements.json").write_text(json.dumps({"made/kineto_rank0.json": measurement(**change)}))
    bounds = ("--fail-over", f"{metric}=0.0001", "--fail-under", "traces_within_bars=1")
    code, report, err = run(capsys, "--data", tmp_path, *bounds)
    assert code == 1
    assert metric in err
    assert report["matched"] == 0
    assert report["metrics"]["traces_within_bars"] == 0
    assert report["worst"][0]["row"] == "made rank 0 ProfilerStep#3"


def test_a_step_that_the_capture_lacks_is_no_match(tmp_path, capsys):
    write(tmp_path / "made", [capture(0)])
    told = {"made/kineto_rank0.json": measurement(step="ProfilerStep#9")}
    (tmp_path / "reference_measurements.json").write_text(json.dumps(told))
    _, report, _ = run(capsys, "--data", tmp_path)
    assert (report["rows"], report["matched"], report["metrics"]["step_time_mape"]) == (1, 0, 1.0)


def test_a_broken_trace_is_refused_and_the_others_are_judged(tmp_path, capsys):
    write(tmp_path / "good", [capture(0)])
    write(tmp_path / "bad", ["nothing"])
    _, report, _ = run(capsys, "--data", tmp_path)
    assert report["matched"] == 1
    assert report["rows"] == 2
    assert report["metrics"]["traces_within_bars"] == 0.5
    assert any(reason.startswith("bad:") for reason in report["refused"])


@pytest.mark.parametrize("reference", ["{", "[]", '{"made/kineto_rank0.json": {"steps": [{"step": "x"}]}}'])
def test_a_malformed_reference_is_told(tmp_path, capsys, reference):
    write(tmp_path / "made", [capture(0)])
    (tmp_path / "reference_measurements.json").write_text(reference)
    code, report, err = run(capsys, "--data", tmp_path)
    assert code == 2 or (report and report["refused"]), err


def test_a_folder_without_captures_is_refused(tmp_path, capsys):
    code, _, err = run(capsys, "--data", tmp_path)
    assert code == 2
    assert "kineto_rank" in err


def test_reference(traces_reference, capsys):
    """The bars: step time within 3 %, exposed communication within 5 % of the step, compute and overlap within 1 % or 5 us."""
    code, report, err = run(
        capsys, "--data", traces_reference, "--fail-under", "traces_within_bars=1", "--fail-over", "step_time_worst=0.001",
        "--fail-over", "exposed_error=0.001", "--fail-over", "overlap_error=0.001", "--fail-over", "compute_error=0.001",
    )  # fmt: skip
    assert code == 0, err
    assert report["rows"] == report["matched"] == 27
    assert {name: int(group["rows"]) for name, group in report["groups"].items()} == {
        "hta_ddp_2xA100": 3, "hta_ddp_2xV100": 5, "hta_rec_16xA100": 5, "hta_rec_8xA100": 6, "param_dlrm_8xV100": 8,
    }  # fmt: skip
    assert report["groups"]["param_dlrm_8xV100"]["hta_compute_error"] == 0
