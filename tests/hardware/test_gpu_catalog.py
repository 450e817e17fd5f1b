"""GPUs: every figure has its source, every spelling in use finds its GPU, bad files are refused in words."""

from __future__ import annotations

import csv

import pytest
from building import reference_folder

from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import folded, gpu, gpus, read_gpu
from distsim.nccl.gpus import GPUS as NCCL_GPUS
from distsim.topology.presets import PRESETS

SPELT = {
    "A100-80G": "a100_sxm", "A100-40G": "a100_sxm_40g", "A100(Ampere)-80G": "a100_sxm", "NVIDIA A100-SXM4-40GB": "a100_sxm_40g",
    "A100 80GB": "a100_sxm", "H100-80G": "h100_sxm", "H100": "h100_sxm", "NVIDIA H100 80GB HBM3": "h100_sxm",
    "h100 pcie": "h100_pcie", "H100-96G HBM2e 2.4TB/s 500W": "h100_sxm_96g", "H200": "h200_sxm", "B200-SXM": "b200_sxm",
    "B200": "b200_sxm", "B300": "b300_sxm", "GB200": "gb200", "GB200 NVL72": "gb200", "GB300": "gb300", "V100": "v100_sxm",
    "AMD Instinct MI300X": "mi300x", "RTX PRO 6000 (server)": "rtx_pro_6000_server", "TPU v5p": "tpu_v5p", "L40S": "l40s",
}  # fmt: skip
GOOD = """
name: mine
about: a GPU of one's own
generation: hopper
peak: {bf16: 1.0e+15}
memory: 1073741824
memory_bandwidth: 1.0e+12
sms: 100
l2: 1048576
sources: {peak: measured, memory: measured, memory_bandwidth: measured, sms: measured, l2: measured}
"""


@pytest.mark.parametrize("name", sorted(gpus()))
def test_every_figure_has_a_source(name):
    one = gpus()[name]
    assert one.unsourced() == ()
    figures = {"memory", "memory_bandwidth", "sms", "l2", "nvlink", "nic", "power", "clock", "peak"}
    figures |= {f"peak.{dtype}" for dtype in one.peak}
    assert set(one.sources) <= figures


def test_a_figure_without_a_source_is_found():
    one = gpu("h100")
    less = {key: value for key, value in one.sources.items() if key not in ("l2", "peak")}
    assert one.model_copy(update={"sources": less | {"peak.bf16": "x"}}).unsourced() == (
        "l2", "peak.fp32", "peak.tf32", "peak.fp16", "peak.fp8", "peak.int8")  # fmt: skip


@pytest.mark.parametrize(("text", "name"), SPELT.items())
def test_spellings_find_their_gpu(text, name):
    assert gpu(text).name == name
    assert gpu(text.upper()).name == gpu(f" {text.lower()} ").name == name


def test_names_and_aliases_are_unambiguous():
    spellings = [folded(spelling) for one in gpus().values() for spelling in (one.name, *one.aliases)]
    assert len(spellings) == len(set(spellings))


def test_devices_of_topologies_and_of_nccl_are_known():
    devices = {preset.figures["device"].value for preset in PRESETS.values() if "device" in preset.figures}
    assert {"h100", "a100", "gb200", "tpu_v5p"} <= devices
    for device in devices | set(NCCL_GPUS):
        assert gpu(device).name.startswith(device)


def test_the_systems_of_the_compute_tables_are_known_with_their_figures():
    file = reference_folder("compute") / "gpu_specs.csv"
    rows = list(csv.reader(file.open()))
    column = {name: i for i, name in enumerate(rows[0])}
    checked = 0
    for row in rows[1:]:
        if row[0] == "b60":
            continue
        one = gpu(row[0])
        assert one.name == row[0]
        assert one.rate("bf16") == pytest.approx(float(row[column["bfloat16_tc_flops"]]), rel=1e-3)
        assert one.memory == float(row[column["mem_capacity"]])
        assert one.memory_bandwidth == pytest.approx(float(row[column["mem_bw"]]), rel=1e-3)
        assert one.sms == float(row[column["sm"]])
        assert one.l2 == float(row[column["l2_mb"]]) * 2**20
        for dtype in ("fp8", "int8", "fp4"):
            if stated := row[column[f"{dtype}_tc_flops"]]:
                assert one.rate(dtype) == pytest.approx(float(stated), rel=1e-3), (row[0], dtype)
        checked += 1
    assert checked >= 9


def test_peaks_are_ordered_by_width():
    for one in gpus().values():
        widest_first = [one.peak[dtype] for dtype in ("fp32", "bf16", "fp8", "fp4") if dtype in one.peak]
        assert widest_first == sorted(widest_first)
        assert one.l2 < one.memory
        assert one.nic < one.memory_bandwidth
    assert gpu("b200").rate("bf16") == 2250e12
    assert gpu("gb200").rate("bf16") == 2500e12


def test_unknown_gpu_and_missing_unit_are_refused():
    with pytest.raises(UnknownNameError, match="unknown GPU 'h10o'") as failure:
        gpu("h10o")
    assert failure.value.near
    with pytest.raises(ConfigError, match="a100_sxm has no fp8 peak"):
        gpu("a100").rate("fp8")


def test_a_gpu_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD)
    assert gpu(str(file)).rate("bf16") == 1e15


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("sms: 100", "sms: -1", "sms: Input should be greater than 0"),
        ("sms: 100", "sms: many", "sms: Input should be a valid integer"),
        ("l2: 1048576", "l3: 1048576", "l3"),
        ("bf16: 1.0e+15", "bf17: 1.0e+15", "bf17"),
        ("bf16: 1.0e+15", "bf16: 0", "bf16"),
        ("bf16: 1.0e+15", "bf16: .inf", "bf16"),
        ("name: mine", "name: [", "cannot be read"),
        (GOOD, "just text", "no GPU description"),
        (GOOD, "", "no GPU description"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path, old, new, told):
    file = tmp_path / "mine.yaml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=told) as failure:
        read_gpu(file)
    assert str(file) in str(failure.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        gpu(str(tmp_path / "none.yaml"))
