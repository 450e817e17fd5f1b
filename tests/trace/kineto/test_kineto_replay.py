"""A capture as a program: replayed as it is it ends as it was; changed, what depends moves and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kineto_files import BACKWARD, KinetoFile, random_file

from distsim.api import simulate
from distsim.trace.graph import NodeType
from distsim.trace.kineto.device import OVERLAP_PS
from distsim.trace.kineto.read import graph_of_captures
from distsim.trace.kineto.reading import read_capture
from distsim.trace.order import program_order
from distsim.trace.read import load

US = 1_000_000  # ps
NS = 1_000


def graph_of(data):
    return graph_of_captures([read_capture(data, "k.json")], [0], "k.json")


def replayed(graph, rank=0):
    """(start, end) of every row of a rank's program."""
    spans = simulate(graph).spans()
    mine = spans.rank == rank
    return spans.start[mine], spans.end[mine]


def gpu_rows(graph, rank=0):
    program = graph.program(rank)
    return np.array([graph.streams[s].startswith("gpu") if s >= 0 else False for s in program.stream]) & (
        program.type != NodeType.DELAY
    )


def starts(graph, name):
    """Recorded and replayed starts of the nodes of a name, us."""
    start, _ = replayed(graph)
    program = graph.program(0)
    rows = [row for row in range(len(program)) if graph.names[program.name[row]] == name]
    return [int(program.start_ps[row]) / US for row in rows], [int(start[row]) / US for row in rows]


def longer(graph, name, extra_us):
    """The graph with the first node of that name taking so much longer."""
    program = graph.program(0)
    duration = program.duration_ps.copy()
    row = next(row for row in range(len(program)) if graph.names[program.name[row]] == name)
    duration[row] += extra_us * US
    return dataclasses.replace(graph, programs=(dataclasses.replace(program, duration_ps=duration),))


def moved(graph, changed):
    """Name -> by how many us its first node starts later than in the unchanged replay; GPU nodes only."""
    (before, _), (after, _) = replayed(graph), replayed(changed)
    names = [graph.names[n] for n in graph.program(0).name]
    shown = gpu_rows(graph)
    return {names[row]: (int(after[row]) - int(before[row])) / US for row in np.flatnonzero(shown)[::-1]}


@pytest.mark.parametrize("style", ["new", "whole", "exact"])
@given(seed=st.integers(0, 10**6))
@example(seed=3)
@settings(max_examples=60, deadline=None)
def test_law_an_unmodified_replay_meets_every_recorded_start_and_end(style, seed):
    data = random_file(seed, style)
    capture = read_capture(data, "k.json")
    graph, _ = graph_of_captures([capture], [0], "k.json")
    program = graph.program(0)
    assert (program_order(program) == np.arange(len(program))).all()
    start, end = replayed(graph)
    assert (start == program.start_ps).all()
    kernels = np.flatnonzero(gpu_rows(graph))
    assert len(kernels) == len(capture.kernels)
    # of kernels that start together the order within the capture holds
    assert sorted(start[kernels].tolist()) == capture.kernels.start_ps.tolist()
    recorded = dict.fromkeys(zip(capture.kernels.start_ps.tolist(), capture.kernels.end_ps.tolist(), strict=True))
    cut = [(s, e) for s, e in zip(start[kernels].tolist(), end[kernels].tolist(), strict=True) if (s, e) not in recorded]
    for s, e in cut:  # shortened, by no more than an overlap may be
        assert any(s == s2 and e < e2 <= e + OVERLAP_PS for s2, e2 in recorded)


@given(seed=st.integers(0, 10**6), extra=st.integers(0, 200))
@settings(max_examples=25, deadline=None)
def test_law_a_longer_kernel_makes_nothing_earlier(seed, extra):
    graph, _ = graph_of(random_file(seed))
    rows = np.flatnonzero(gpu_rows(graph))
    name = graph.names[graph.program(0).name[rows[len(rows) // 2]]]
    (before, _), (after, _) = replayed(graph), replayed(longer(graph, name, extra))
    assert (after >= before).all()


def test_host_bound_kernels_follow_their_launches():
    """Ten launches, each idle stream: a host that is twice as slow makes kernels late by the host's time."""
    file = KinetoFile()
    for k in range(10):
        file.launched(20_000 * k, 20_000 * k + 6_000, 20_000 * k + 9_000)
    graph, defects = graph_of(file.data())
    assert defects == []
    program = graph.program(0)
    doubled = np.where(program.cpu, 2 * program.duration_ps, program.duration_ps)
    slow = dataclasses.replace(graph, programs=(dataclasses.replace(program, duration_ps=doubled),))
    start, _ = replayed(slow)
    assert [int(s) for s in start[gpu_rows(graph)]] == [(40 * k + 6) * US for k in range(10)]


def test_a_stream_that_runs_behind_hides_the_host():
    """Launches run ahead; kernels follow each other 1 us apart: that pause is the stream's, and a slower host is hidden."""
    file = KinetoFile()
    for k in range(8):
        file.launched(3_000 * k, 6_000 + 50_000 * k, 6_000 + 50_000 * k + 49_000)
    graph, _ = graph_of(file.data())
    program = graph.program(0)
    pauses = [graph.names[n] for n, kind in zip(program.name, program.type, strict=True) if kind == NodeType.DELAY]
    assert pauses.count("stream pause") == 7
    doubled = np.where(program.cpu, 2 * program.duration_ps, program.duration_ps)
    slow = dataclasses.replace(graph, programs=(dataclasses.replace(program, duration_ps=doubled),))
    assert (replayed(slow)[0][gpu_rows(graph)] == program.start_ps[gpu_rows(graph)]).all()
    quick = np.where(gpu_rows(graph), program.duration_ps // 2, program.duration_ps)
    fast = dataclasses.replace(graph, programs=(dataclasses.replace(program, duration_ps=quick),))
    start, _ = replayed(fast)
    assert [int(s) / US for s in start[gpu_rows(graph)]] == [6 + 25.5 * k for k in range(8)]


def test_a_synchronisation_holds_the_host_until_its_kernel_has_ended():
    file = KinetoFile()
    file.launched(0, 6_000, 100_000, name="long_gemm")
    file.call("cudaStreamSynchronize", 10_000, 103_000)
    file.launched(120_000, 126_000, 130_000, name="next_gemm")
    graph, defects = graph_of(file.data())
    assert defects == []
    assert moved(graph, longer(graph, "long_gemm", 50)) == {"long_gemm": 0, "next_gemm": 50}


def test_a_copy_to_pageable_memory_holds_the_host():
    file = KinetoFile()
    number = file.call("cudaMemcpyAsync", 0, 40_000)
    file.ran("Memcpy DtoH (Device -> Pageable)", 8_000, 38_000, 7, number, bytes=4096)
    file.launched(50_000, 56_000, 60_000, name="next_gemm")
    graph, _ = graph_of(file.data())
    assert moved(graph, longer(graph, "Memcpy DtoH (Device -> Pageable)", 30))["next_gemm"] == 30
    program = graph.program(0)
    assert program.tensor_size[program.type == NodeType.MEM_STORE].tolist() == [4096]


def test_a_synchronisation_that_ended_before_its_kernel_is_no_dependency():
    file = KinetoFile()
    file.launched(0, 6_000, 100_000, name="long_gemm")
    file.call("cudaStreamSynchronize", 10_000, 20_000)
    file.launched(120_000, 126_000, 130_000, name="next_gemm")
    graph, defects = graph_of(file.data())
    assert ["over before what was waited for had ended" in d.what for d in defects] == [True]
    assert moved(graph, longer(graph, "long_gemm", 10))["next_gemm"] == 0


@pytest.mark.parametrize("told", [False, True])
def test_a_stream_waits_for_another(told):
    """Compute, then a collective on its own stream that waits for it, then compute that waits for the collective."""
    file = KinetoFile()
    file.launched(0, 6_000, 80_000, 7, name="backward")
    record = file.call("cudaEventRecord", 3_000, 4_000)
    wait = file.call("cudaStreamWaitEvent", 5_000, 6_000)
    file.launched(8_000, 82_000, 150_000, 20, name="ncclDevKernel_AllReduce")
    again = file.call("cudaEventRecord", 11_000, 12_000)
    second = file.call("cudaStreamWaitEvent", 13_000, 14_000)
    file.launched(16_000, 153_000, 160_000, 7, name="optimizer")
    if told:  # CUDA synchronisation events of PyTorch 2.3 and later
        for correlation, stream, source, by in ((wait, 20, 7, record), (second, 7, 20, again)):
            file.event("cuda_sync", "Stream Wait Event", 0, 0, 0, stream, stream=stream, correlation=correlation, device=0,
                       wait_on_stream=source, wait_on_cuda_event_record_corr_id=by)  # fmt: skip
    graph, defects = graph_of(file.data())
    assert [d for d in defects if d.kind == "capture"] == []
    assert moved(graph, longer(graph, "backward", 40)) == {"backward": 0, "ncclDevKernel_AllReduce": 40, "optimizer": 40}
    assert moved(graph, longer(graph, "ncclDevKernel_AllReduce", 9))["optimizer"] == 9


def test_what_is_told_of_a_wait_goes_before_what_order_suggests():
    """Two streams have had work; the file names the one that was waited for, though the other's ended later."""
    file = KinetoFile()
    file.launched(0, 6_000, 50_000, 20, name="waited_for")
    record = file.call("cudaEventRecord", 3_000, 4_000)
    file.launched(6_000, 12_000, 70_000, 21, name="beside")
    wait = file.call("cudaStreamWaitEvent", 9_000, 10_000)
    file.event("cuda_sync", "Stream Wait Event", 0, 0, stream=7, correlation=wait, wait_on_stream=20,
               wait_on_cuda_event_record_corr_id=record)  # fmt: skip
    file.launched(12_000, 90_000, 99_000, 7, name="waits")
    graph, _ = graph_of(file.data())
    assert moved(graph, longer(graph, "waited_for", 100))["waits"] == 100
    assert moved(graph, longer(graph, "beside", 15))["waits"] == 0


def test_work_on_other_streams_is_independent():
    file = KinetoFile()
    for k in range(5):
        file.launched(10_000 * k, 10_000 * k + 5_000, 10_000 * k + 9_000, 7)
        file.launched(10_000 * k + 3_000, 10_000 * k + 9_500, 10_000 * k + 14_000, 20, name="side")
    graph, _ = graph_of(file.data())
    assert moved(graph, longer(graph, "gemm_kernel", 500))["side"] == 0


def test_threads_wake_each_other():
    """Main thread, autograd thread, main thread: slower host work before or in the backward moves what comes after."""
    file = KinetoFile()
    file.launched(0, 6_000, 9_000, name="forward")
    file.launched(300_000, 306_000, 320_000, tid=BACKWARD, name="backward")
    file.launched(340_000, 346_000, 350_000, tid=BACKWARD, name="backward2")
    file.launched(700_000, 706_000, 720_000, name="optimizer")
    graph, _ = graph_of(file.data())
    program = graph.program(0)
    wakes = program.type == NodeType.DELAY
    assert [graph.names[n] for n in program.name[wakes]].count("thread wakes") == 2
    row = next(k for k in range(len(program)) if program.cpu[k] and program.start_ps[k] == 300_000 * NS)
    duration = program.duration_ps.copy()
    duration[row] += 77 * US
    changed = dataclasses.replace(graph, programs=(dataclasses.replace(program, duration_ps=duration),))
    shift = moved(graph, changed)
    assert (shift["forward"], shift["backward2"], shift["optimizer"]) == (0, 77, 77)


def test_a_thread_that_was_always_busy_wakes_nobody():
    file = KinetoFile()
    for k in range(50):
        file.launched(20_000 * k, 20_000 * k + 6_000, 20_000 * k + 9_000, 7, tid=BACKWARD)
    file.launched(1_000, 8_000, 9_000, 20, name="first")
    file.launched(800_000, 806_000, 809_000, 20, name="second")
    graph, _ = graph_of(file.data())
    assert "thread wakes" not in graph.names


def test_kernels_of_a_cuda_graph_follow_each_other_across_streams():
    file = KinetoFile()
    number = file.call("cudaGraphLaunch", 0, 9_000)
    file.ran("head", 10_000, 20_000, 7, number)
    file.ran("left", 21_000, 40_000, 7, number)
    file.ran("right", 21_500, 50_000, 30, number)
    file.ran("tail", 51_000, 60_000, 7, number)
    graph, _ = graph_of(file.data())
    assert moved(graph, longer(graph, "head", 30)) == {"head": 0, "left": 30, "right": 30, "tail": 30}
    assert moved(graph, longer(graph, "right", 30)) == {"head": 0, "left": 0, "right": 0, "tail": 30}


def test_small_overlaps_are_cut_and_large_ones_get_a_lane():
    file = KinetoFile()
    file.launched(0, 6_000, 20_500, name="early")
    file.launched(3_000, 20_000, 30_000, name="late")
    file.launched(5_000, 22_000, 90_000, name="beside")
    graph, defects = graph_of(file.data())
    assert any("shortened, 500 ns in all" in d.what for d in defects)
    assert any("lanes of their own" in d.what for d in defects)
    assert "gpu stream 7 (2)" in graph.streams
    start, end = replayed(graph)
    rows = gpu_rows(graph)
    assert [(int(s) // US, int(e) // US) for s, e in zip(start[rows], end[rows], strict=True)] == [(6, 20), (20, 30), (22, 90)]


def test_a_kernel_that_started_before_its_launch():
    file = KinetoFile()
    file.launched(0, 6_000, 9_000, name="first")
    file.launched(50_000, 49_000, 60_000, name="early")
    graph, defects = graph_of(file.data())
    assert any("started before the launch was called" in d.what for d in defects)
    assert starts(graph, "early") == ([49.0], [49.0])


def test_several_devices_in_one_file():
    file = KinetoFile()
    for device in (0, 1):
        number = file.call("cudaLaunchKernel", 5_000 * device, 5_000 * device + 1_000)
        file.ran(f"gemm{device}", 9_000 + 5_000 * device, 20_000, 7, number, device=device)
    graph, _ = graph_of(file.data())
    assert {"gpu 0 stream 7", "gpu 1 stream 7"} <= set(graph.streams)


def test_steps_are_told_of_kernels_and_host():
    file = KinetoFile()
    file.step(5, 0, 50_000)
    file.step(6, 50_000, 120_000)
    file.launched(1_000, 8_000, 60_000, name="of_five")  # ends in the next step, was launched in this
    file.launched(55_000, 62_000, 70_000, name="of_six")
    file.launched(130_000, 136_000, 140_000, name="outside")
    graph, _ = graph_of(file.data())
    program = graph.program(0)
    assert graph.steps == ("ProfilerStep#5", "ProfilerStep#6")
    assert graph.captured
    step = {graph.names[n]: int(s) for n, s in zip(program.name, program.step, strict=True)}
    assert (step["of_five"], step["of_six"], step["outside"]) == (0, 1, -1)
    host = program.step[program.cpu].tolist()  # rows are in order of time
    assert host[0] == 0
    assert 1 in host


def test_reference_captures_replay_exactly(traces_reference):
    for folder in ("hta_ddp_2xA100", "hta_rec_16xA100", "param_dlrm_8xV100"):
        graph, _ = load(str(traces_reference / folder))
        spans = simulate(graph).spans()
        for rank in range(graph.ranks):
            program = graph.program(rank)
            mine = spans.rank == rank
            assert (spans.start[mine] == program.start_ps).all(), (folder, rank)
            timed = program.type != NodeType.COMM_COLL
            assert ((spans.end - spans.start)[mine][timed] == program.duration_ps[timed]).all()
