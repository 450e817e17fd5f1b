"""Kineto files of all versions, whole and damaged, to the columns of a capture."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kineto_files import BACKWARD, KinetoFile, random_file

from distsim.errors import TraceError
from distsim.trace.kineto.calls import call_kind
from distsim.trace.kineto.capture import CallKind, GpuKind
from distsim.trace.kineto.kernels import CLASSES, is_communication, kernel_class
from distsim.trace.kineto.measure import measure
from distsim.trace.kineto.reading import read_capture
from distsim.trace.kineto.sniff import is_capture, recognises

US = 1_000_000


def simple(style="new", **head):
    file = KinetoFile(style, **head)
    file.step(3, 0, 100_000)
    file.event("cpu_op", "aten::mm", 1_000, 30_000)
    file.launched(10_000, 17_000, 27_000, 7, name="volta_sgemm_128x64_nn")
    number = file.call("cudaMemcpyAsync", 20_000, 22_000)
    file.ran("Memcpy HtoD (Pinned -> Device)", 30_000, 35_000, 9, number, bytes=640)
    file.launched(40_000, 47_000, 60_000, 20, tid=BACKWARD, name="ncclKernel_AllReduce_RING_LL_Sum_float(ncclWorkElem)")
    file.launched(120_000, 127_000, 130_000, 7, name="outside")
    return file


@pytest.mark.parametrize("style", ["new", "whole", "old", "exact", "list"])
def test_every_style_gives_the_same_columns(style):
    capture = read_capture(simple(style).data(), "k.json")
    kernels = capture.kernels
    assert (kernels.start_ps // US).tolist() == [16, 29, 46, 126]  # from the earliest event, the operator at 1 us
    assert (kernels.end_ps // US).tolist() == [26, 34, 59, 129]
    assert kernels.kind.tolist() == [GpuKind.COMPUTE, GpuKind.COPY, GpuKind.COMMUNICATION, GpuKind.COMPUTE]
    assert [capture.streams[s] for s in kernels.stream] == [(0, 7), (0, 9), (0, 20), (0, 7)]
    assert kernels.bytes.tolist() == [-1, 640, -1, -1]
    assert (capture.calls.start_ps[kernels.launch] // US).tolist() == [9, 19, 39, 119]
    assert kernels.step.tolist() == [0, 0, 0, -1]
    assert [(s.name, s.start_ps // US, s.end_ps // US) for s in capture.steps] == [("ProfilerStep#3", -1, 99)]
    assert [capture.threads[t] for t in capture.calls.thread] == ["main thread", "main thread", "thread 2", "main thread"]


def test_the_head_of_the_file():
    head = {
        "distributedInfo": {"backend": "nccl", "rank": 5, "world_size": 64},
        "deviceProperties": [{"id": 1, "name": "other"}, {"id": 0, "name": "NVIDIA H100"}],
    }
    capture = read_capture(simple(**head).data(), "k.json")
    assert (capture.rank, capture.world_size, capture.gpu) == (5, 64, "NVIDIA H100")
    assert capture.base_ps == 1_700_000_000_000_001_000_000  # baseTimeNanoseconds, and 1 us
    assert read_capture(simple().data()).rank == -1


def test_absolute_fractions_keep_their_nanoseconds():
    file = KinetoFile("exact")
    for k in range(40):
        file.launched(9_001 * k, 9_001 * k + 3_003, 9_001 * k + 5_007)
    kernels = read_capture(file.data()).kernels
    assert (np.diff(kernels.start_ps) == 9_001_000).all()
    assert (kernels.end_ps - kernels.start_ps == 2_004_000).all()


def test_device_and_stream_from_pid_and_tid():
    file = simple()
    for event in file.events:
        if event["cat"] == "kernel":
            del event["args"]["device"], event["args"]["stream"]
            event["tid"] = f"stream {event['tid']}"
    capture = read_capture(file.data())
    assert capture.streams == ((0, 7), (0, 9), (0, 20))


def test_a_launch_goes_before_another_call_of_the_same_correlation():
    file = KinetoFile()
    number = file.call("cudaLaunchKernelExC", 10_000, 30_000)
    file.call("cuCtxGetCurrent", 12_000, 13_000, correlation=number)
    file.ran("triton_poi_fused_add_0", 40_000, 50_000, 7, number)
    driver = file.call("hipExtUnknownModuleStart", 60_000, 62_000)  # a name of tomorrow: it has a kernel, so it launches
    file.ran("k", 70_000, 80_000, 7, driver)
    capture = read_capture(file.data())
    calls = capture.calls
    assert [capture.names[calls.name[c]] for c in capture.kernels.launch] == ["cudaLaunchKernelExC", "hipExtUnknownModuleStart"]
    assert (calls.kind[capture.kernels.launch] == CallKind.LAUNCH).all()


def test_kernels_without_launch_and_without_correlation_are_told():
    file = simple()
    file.ran("lost", 150_000, 160_000, 7, 777_777)
    file.ran("bare", 170_000, 180_000, 7)
    capture = read_capture(file.data())
    assert capture.kernels.launch.tolist()[-2:] == [-1, -1]
    found = [(o.count, o.rest) for o in capture.oddities if o.count]
    assert found == [(2, "without a launch: after what came before on the stream")]


def test_forward_and_backward_are_linked():
    file = simple()
    for ph, tid, ts in (("s", 4000, 5), ("f", BACKWARD, 41)):
        file.events.append({"ph": ph, "id": 9, "pid": 4000, "tid": tid, "ts": ts, "cat": "fwdbwd", "name": "fwdbwd"})
    assert read_capture(file.data()).forward.tolist() == [[0, 4 * US, 1, 40 * US]]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace('"cat": "cpu_op"', '"cat": "cpu_op", "est": nan'), "no JSON"),
        (lambda text: text.replace('"bytes": 640', '"bytes": 640, "memory bandwidth (GB/s)": -inf'), "no JSON"),
        (lambda text: text.replace("aten::mm", r"C:\Users\x"), "no JSON"),
        (lambda text: text.replace('"name": "aten::mm"', '"name" "aten::mm"'), "cannot be read"),
        (lambda text: text.replace('], "traceName"', ',], "traceName"'), None),
        (lambda text: text.replace('"schemaVersion": 1', '"schemaVersion": 1,'), None),
        (lambda text: text.replace('"est"', '"est"').replace('"ts": 1.0,', '"ts": NaN,'), "without a usable time"),
    ],
)  # fmt: skip
def test_damage_is_stepped_over_and_told(damage, told):
    text = simple().data().decode()
    damaged = damage(text)
    assert damaged != text
    capture = read_capture(damaged.encode())
    assert len(capture.kernels) == 4
    assert [told in o.rest for o in capture.oddities if o.count] == ([True] if told else [])


def test_other_encodings_and_a_byte_order_mark():
    text = simple().data().replace(b"aten::mm", "nccl:größe".encode()).replace(b"outside", b"k\xff\xfe")
    capture = read_capture(b"\xef\xbb\xbf" + text)
    assert capture.names[capture.ops.name[0]] == "nccl:größe"
    assert len(capture.kernels) == 4


@given(cut=st.floats(0.05, 0.999), seed=st.integers(0, 200))
@settings(max_examples=80, deadline=None)
def test_a_file_cut_short_gives_what_it_had_or_is_refused(cut, seed):
    data = random_file(seed)
    short = data[: int(len(data) * cut)]
    try:
        capture = read_capture(short, "k.json")
    except TraceError as error:
        assert "k.json" in str(error)  # noqa: PT017
        return
    whole = read_capture(data)
    assert len(capture.kernels) <= len(whole.kernels)
    assert any(o.count and "cut short" in o.rest for o in [Cut(o) for o in capture.oddities])


class Cut:
    """An oddity with its sentence in one."""

    def __init__(self, oddity):
        self.count, self.rest = oddity.count, f"{oddity.one} {oddity.rest}"


@given(data=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_bytes_of_no_kind_are_refused(data):
    with pytest.raises(TraceError):
        read_capture(b'{"traceEvents": [' + data, "k.json")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[", "{}", "nonsense", '{"traceEvents": []}', '{"traceEvents": 5}', '{"traceEvents": [1, null, "x", []]}',
        '{"traceEvents": [{"ph": "X", "cat": "kernel", "ts": "soon", "dur": 1, "name": "k"}]}',
        '{"traceEvents": [{"ph": "X", "cat": ["kernel"], "ts": 1, "dur": 1, "name": "k"}]}',
        '{"traceEvents": [{"ph": "X", "cat": "kernel", "ts": 1, "dur": -1, "name": "k"}]}',
        '{"traceEvents": [{"ph": "X", "cat": "kernel", "ts": 1e300, "dur": 1, "name": "k"}]}',
        '{"traceEvents": [' + "[" * 100_000,
    ],
)  # fmt: skip
def test_what_holds_nothing_that_ran_is_refused(text):
    with pytest.raises(TraceError, match=r"k\.json"):
        read_capture(text.encode(), "k.json")


def test_strange_values_in_single_fields():
    file = simple()
    file.events[2]["args"]["correlation"] = 10**30
    file.events[3]["args"] |= {"External id": "12", "stream": None}
    file.events[4]["tid"] = {"a": 1}
    file.events[5]["args"] = None
    assert len(read_capture(file.data()).kernels) == 4


def test_only_the_host_was_recorded():
    file = KinetoFile()
    file.event("cpu_op", "aten::mm", 0, 10)
    with pytest.raises(TraceError, match=r"only the host was recorded"):
        read_capture(file.data(), "k.json")


def test_recognising(tmp_path):
    assert recognises(simple().data())
    assert recognises(simple("list").data())
    for other in (b"", b"{}", b"[]", b'[{"id": 1}]', b'{"format": "distsim-trace/1", "programs": []}',
                  b'{"workload_graph": []}', b'{"schema": "1.0.1", "nodes": []}', b'{"traceEvents": 5}'):  # fmt: skip
        assert not recognises(other)
    (tmp_path / "x.json.gz").write_bytes(b"\x1f\x8bnot gzip")
    assert not is_capture(str(tmp_path / "x.json.gz"))
    assert not is_capture(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cudaLaunchKernel", CallKind.LAUNCH), ("cuLaunchKernelEx", CallKind.LAUNCH), ("cudaGraphLaunch", CallKind.LAUNCH),
        ("hipExtModuleLaunchKernel", CallKind.LAUNCH), ("cudaLaunchCooperativeKernel", CallKind.LAUNCH),
        ("cudaLaunchHostFunc", CallKind.OTHER), ("cudaMemcpyAsync", CallKind.LAUNCH), ("cudaMemsetAsync", CallKind.LAUNCH),
        ("cudaMemcpy", CallKind.BLOCKING_COPY), ("cuMemcpyHtoD_v2", CallKind.BLOCKING_COPY),
        ("cudaStreamSynchronize", CallKind.STREAM_SYNC), ("hipStreamSynchronize", CallKind.STREAM_SYNC),
        ("cudaEventSynchronize", CallKind.EVENT_SYNC), ("cudaEventRecordWithFlags", CallKind.EVENT_RECORD),
        ("cudaStreamWaitEvent", CallKind.EVENT_WAIT), ("cuCtxSynchronize", CallKind.DEVICE_SYNC),
        ("cudaDeviceSynchronize", CallKind.DEVICE_SYNC), ("cudaEventQuery", CallKind.OTHER), ("INVALID", CallKind.OTHER),
    ],
)  # fmt: skip
def test_kinds_of_calls(name, kind):
    assert call_kind(name) is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ampere_fp16_s16816gemm_fp16_128x128_ldg8_f2f_stages_32x5_tn", "gemm"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm>(Params)", "gemm"),
        ("nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_TNT", "gemm"),
        ("Cijk_Alik_Bljk_HHS_BH_MT128x128x32", "gemm"),
        ("void flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64>>(Flash_fwd_params)", "attention"),
        ("fmha_cutlassF_f16_aligned_64x128_rf_sm80", "attention"),
        ("void cudnn::cnn::conv2d_grouped_direct_kernel<float>()", "convolution"),
        ("sm80_xmma_fprop_implicit_gemm_tf32f32", "convolution"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float>(int)", "norm"),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float>()", "norm"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>(int)", "elementwise"),
        ("triton_poi_fused_add_0", "elementwise"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>(R)", "reduction"),
        ("void at::native::(anonymous namespace)::cunn_SoftMaxForward<4, float>(float*)", "softmax"),
        ("void split_embedding_codegen_forward_unweighted_kernel<float>()", "embedding"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor>(T)", "optimizer"),
        ("void at::native::radixSortKVInPlace<2>(int)", "index"),
        ("Memcpy HtoD (Pinned -> Device)", "copy"),
        ("Memset (Device)", "set"),
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "communication"),
        ("void deep_ep::internode::dispatch<false>()", "communication"),
        ("my_kernel(ncclWork*)", "other"),
    ],
)  # fmt: skip
def test_classes_of_kernels(name, kind):
    assert kernel_class(name) == kind
    assert kind in CLASSES
    assert is_communication(name) == (kind == "communication")


@pytest.fixture(scope="module")
def read_once():
    return functools.cache(read_capture)


def test_measured_steps_are_the_reference(traces_reference, read_once):
    reference = json.loads((traces_reference / "reference_measurements.json").read_text())
    compared = 0
    for name, known in reference.items():
        if "kineto" not in name or "hta_ddp_2xV100" in name:  # 50 MB; validate kineto has it
            continue
        found = {one.step: one for one in measure(read_once(traces_reference / name))}
        for step in known["steps"]:
            one = found[step["step"]]
            pairs = ((one.span_ps, "gpu_span_us"), (one.compute_ps, "compute_us"), (one.communication_ps, "comm_us"),
                     (one.overlap_ps, "overlap_us"))  # fmt: skip
            assert [round(ps / 1e6, 1) for ps, _ in pairs] == [round(step[key], 1) for _, key in pairs]
            compared += 1
    assert compared == 22


def test_kernels_of_the_reference_have_classes(traces_reference, read_once):
    for folder in ("hta_ddp_2xA100/kineto_rank0", "hta_rec_8xA100/kineto_rank3"):
        capture = read_once(traces_reference / f"{folder}.json.gz")
        kernels = capture.kernels
        other = np.array([kernel_class(name) == "other" for name in capture.names])[kernels.name]
        time = kernels.end_ps - kernels.start_ps
        assert time[other].sum() < 0.03 * time.sum()
