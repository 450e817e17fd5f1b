"""Clusters by name: the figures of machines and networks that exist, each with its source, on the builders of this package.

``h100_superpod:nodes=16,oversubscription=2`` is a builder's spec with the preset's figures as its defaults; what is written
after the colon overrides them. The built topology carries the builder's complete spec, so that nothing hides in a name.

A source that says *assumed* or *from memory* is just that: check the figure before you rest a decision on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """The value of one parameter of a builder, as a person would write it, and where it comes from."""

    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Preset:
    """A builder with the figures of one machine."""

    about: str  #: one line
    builder: str  #: name under role ``topology``
    figures: Mapping[str, Figure]  #: parameter -> value and source
    default: Mapping[str, str]  #: sizes where neither a job nor the user says
    most: Figure | None = field(default=None)  #: hosts that the machine can have

    @property
    def source(self) -> str:
        """The first source: the one to cite for the whole."""
        return next(iter(self.figures.values())).source

    def options(self) -> dict[str, str]:
        """The figures as options of the builder."""
        return {key: figure.value for key, figure in self.figures.items()}


_PETRONELLA = "petronellatech.com/hardware/h100-h200-nvlink-cluster-scaling"
_SUPERPOD_B200 = "NVIDIA DGX B200 SuperPOD RA, docs.nvidia.com/dgx-superpod/reference-architecture-scalable-infrastructure-b200"
_SUPERPOD_H100 = "NVIDIA DGX H100 SuperPOD RA-11333-001"
_SUPERPOD_A100 = "NVIDIA DGX A100 SuperPOD RA-09950-001"
_EIGHT = Figure("8", "flashgenius.net/guides/ai-server-systems-amp-platform-design-ncp-aii-guide")
_NVLINK_HOP = Figure("500ns", "half of 1 us GPU to GPU, fridayswithfaraday.com/posts/gpu-hw-nvlink-nvswitch-interconnect")
_FABRIC_HOP = Figure("500ns", "SimAI's default NIC-to-switch delay, aliyun/SimAI gen_Topo_Template.py")
_NDR = Figure("400Gbps", "NDR InfiniBand, fridayswithfaraday.com/posts/gpu-hw-nvlink-nvswitch-interconnect")
_HDR = Figure("200Gbps", "HDR InfiniBand, fibermall.com/blog/supercomputer-superpod.htm")
_QUANTUM2 = Figure("64", "Quantum-2 QM9700, itctshop.com/infiniband-switch-guide")
_QUANTUM = Figure("40", f"Quantum QM8790 HDR, {_SUPERPOD_A100} (from memory)")
_NVLINK = {
    "a100": Figure("300GBps", f"NVLink3, 12 links x 25 GB/s each way, {_PETRONELLA}"),
    "h100": Figure("450GBps", f"NVLink4, 18 links x 25 GB/s each way, {_PETRONELLA}"),
    "h200": Figure("450GBps", f"NVLink4, 18 links x 25 GB/s each way, {_PETRONELLA}"),
    "b200": Figure("900GBps", "NVLink5, 18 links x 50 GB/s each way, drpranayjha.com/nvidia-nvlink-nvswitch-scale-up"),
}


def _dgx(device: str, port: Figure) -> dict[str, Figure]:
    """One DGX or HGX node: eight GPUs, NVSwitch, a port per GPU."""
    return {
        "nvlink_bandwidth": _NVLINK[device],
        "nvlink_latency": _NVLINK_HOP,
        "gpus_per_node": _EIGHT,
        "bandwidth": port,
        "latency": _FABRIC_HOP,
        "device": Figure(device, "the GPU that gives the machine its name"),
    }


def _superpod(device: str, port: Figure, nodes: Figure, radix: Figure, reference: str) -> dict[str, Figure]:
    """Scalable units of such nodes, rail-optimised."""
    return {
        "nodes_per_unit": nodes,
        **_dgx(device, port),
        "radix": radix,
        "oversubscription": Figure("1", f"full fat tree, {reference}"),
    }


_ICI_HOP = Figure(
    "500ns", "below 1 us between neighbours, brendanjameslynskey.github.io/Google_TPU_10_ICI_and_OCS; 0.5 assumed"
)
_CUBE = Figure("4", "4x4x4 chips per cube, all joined by OCS, glennklockwood.com/garden/processors/TPUv4")
_V5P = "docs.cloud.google.com/tpu/docs/v5p"
_HPN_NOTES = "wuql20.bearblog.dev paper notes on Alibaba HPN (SIGCOMM 2024)"
_HPN_PAPER = "Qian et al., Alibaba HPN, SIGCOMM 2024 (from memory)"
_META = "glennklockwood.com/garden/systems/meta's-h100-clusters"
_META_ROCE = "Gangidi et al., RDMA over Ethernet at Meta scale, SIGCOMM 2024, by besthub.dev analysis"
_DFP = "Shpiner et al., Dragonfly+: low cost topology for scaling datacenters, HiPINEB 2017"

PRESETS: dict[str, Preset] = {
    "dgx_a100": Preset(
        "DGX or HGX A100 nodes: 8 GPUs on NVSwitch, one 200 Gb/s port per GPU on its own rail",
        "rail_optimized",
        _dgx("a100", _HDR),
        {"nodes": "1"},
    ),
    "dgx_h100": Preset(
        "DGX or HGX H100 nodes: 8 GPUs on NVSwitch, one 400 Gb/s port per GPU on its own rail",
        "rail_optimized",
        _dgx("h100", _NDR),
        {"nodes": "1"},
    ),
    "dgx_h200": Preset(
        "DGX or HGX H200 nodes: the links of H100 nodes",
        "rail_optimized",
        _dgx("h200", _NDR),
        {"nodes": "1"},
    ),
    "dgx_b200": Preset(
        "DGX or HGX B200 nodes: 8 GPUs on NVSwitch, one 400 Gb/s port per GPU on its own rail",
        "rail_optimized",
        _dgx("b200", Figure("400Gbps", f"NDR InfiniBand, {_SUPERPOD_B200}")),
        {"nodes": "1"},
    ),
    "gb200_nvl72": Preset(
        "GB200 NVL72 racks: 72 GPUs on one NVLink fabric (the switch trays taken as one switch), four rails of 400 Gb/s ports",
        "rail_optimized",
        {
            "gpus_per_node": Figure("72", "factryze.ai/scale-atlas/interconnect/nvl72-domain"),
            "nvlink_bandwidth": Figure(
                "900GBps", "130 TB/s over 72 GPUs, both ways, factryze.ai/scale-atlas/interconnect/nvl72-domain"
            ),
            "nvlink_latency": _NVLINK_HOP,
            "bandwidth": Figure(
                "400Gbps",
                "NDR InfiniBand, docs.nvidia.com/dgx-superpod/reference-architecture-scalable-infrastructure-gb200",
            ),
            "latency": _FABRIC_HOP,
            "rails": Figure("4", "four GPUs and ports per compute tray, one rail each (assumed from the rail-optimised RA)"),
            "nodes_per_unit": Figure("1", "a leaf per rail and rack: 18 ports down, 18 up (assumed)"),
            "radix": _QUANTUM2,
            "device": Figure("gb200", "the superchip that gives the machine its name"),
        },
        {"nodes": "1"},
    ),
    "a100_superpod": Preset(
        "DGX A100 SuperPOD: units of 20 nodes with 8 rail switches, spines, cores from 6 units on",
        "rail_optimized",
        _superpod("a100", _HDR, Figure("20", _SUPERPOD_A100 + " (from memory)"), _QUANTUM, _SUPERPOD_A100),
        {"nodes": "140"},
    ),
    "h100_superpod": Preset(
        "DGX H100 SuperPOD: units of 32 nodes with 8 rail switches, spines, cores from 9 units on",
        "rail_optimized",
        _superpod("h100", _NDR, Figure("32", _SUPERPOD_H100), _QUANTUM2, _SUPERPOD_H100),
        {"nodes": "128"},
    ),
    "b200_superpod": Preset(
        "DGX B200 SuperPOD: units of 32 nodes with 8 rail switches, spines, cores from 9 units on",
        "rail_optimized",
        _superpod("b200", _NDR, Figure("32", _SUPERPOD_B200), _QUANTUM2, _SUPERPOD_B200),
        {"nodes": "128"},
    ),
    "meta_clos": Preset(
        "Meta's H100 RoCE cluster: racks of 16 GPUs, pods of 192 racks on cluster switches, 7:1 from pod to aggregation",
        "rail_optimized",
        {
            "core_oversubscription": Figure("7:1", f"{_META} (Llama 3 paper), to the nearest whole cable"),
            "nodes_per_unit": Figure("2", f"two nodes per rack, {_META}"),
            "rails": Figure("1", f"one RTSW per rack, {_META}"),
            "units_per_pod": Figure("192", f"192 racks, 3,072 GPUs per pod, {_META}"),
            "oversubscription": Figure("16/18", f"up-links over-provisioned 1:1.125, {_META_ROCE}"),
            "spines": Figure("18", "one cluster switch per RTSW up-link (assumed)"),
            "radix": Figure("576", f"Arista 7800 of 576 x 400 Gb/s, {_META_ROCE}"),
            **_dgx("h100", Figure("400Gbps", f"400 Gb/s RoCE per GPU, {_META_ROCE}")),
        },
        {"nodes": "3072"},
    ),
    "alibaba_hpn": Preset(
        "Alibaba HPN 7.0: two 200 Gb/s ports per GPU on two ToRs in two planes, segments of 1,024 GPUs, pods of 15 segments",
        "rail_optimized",
        {
            "planes": Figure("2", f"dual ToR, dual plane, {_HPN_NOTES}"),
            "nodes_per_unit": Figure("128", f"1,024 GPUs per segment, {_HPN_NOTES}"),
            "units_per_pod": Figure("15", f"15 segments per pod, {_HPN_NOTES}"),
            "bandwidth": Figure("200Gbps", f"2 x 200 Gb/s per GPU, {_HPN_NOTES}"),
            "spine_bandwidth": Figure("400Gbps", _HPN_PAPER),
            "oversubscription": Figure("16/15", f"128 x 200 Gb/s down, 60 x 400 Gb/s up at a ToR, {_HPN_PAPER}"),
            "spines": Figure("60", f"60 aggregation switches per plane, {_HPN_PAPER}"),
            "core_oversubscription": Figure("15:1", f"aggregation to core, {_HPN_PAPER}"),
            "radix": Figure("128", "51.2 Tb/s as 128 x 400 Gb/s, everythinginsigcomm.group/t/.../hpn/108"),
            "gpus_per_node": Figure("8", f"8 GPUs and 8 rails per host, {_HPN_NOTES}"),
            "nvlink_bandwidth": Figure("450GBps", f"H100-class host (assumed), {_PETRONELLA}"),
            "nvlink_latency": _NVLINK_HOP,
            "latency": _FABRIC_HOP,
        },
        {"nodes": "256"},
    ),
    "tpu_v4": Preset(
        "TPU v4 slice: a 3D torus of 4x4x4 cubes, joined and wrapped around by optical circuit switches",
        "torus",
        {
            "bandwidth": Figure("400Gbps", "50 GB/s each way, six links, glennklockwood.com/garden/processors/TPUv4"),
            "cube": _CUBE,
            "latency": _ICI_HOP,
            "device": Figure("tpu_v4", "the chip that gives the machine its name"),
        },
        {"dims": "16x16x16"},
        Figure("4096", "64 cubes per pod, glennklockwood.com/garden/processors/TPUv4"),
    ),
    "tpu_v5p": Preset(
        "TPU v5p slice: a 3D torus of 4x4x4 cubes, joined and wrapped around by optical circuit switches",
        "torus",
        {
            "bandwidth": Figure("100GBps", f"1,200 GB/s both ways per chip over six links, {_V5P}"),
            "cube": Figure("4", f"slices from 4x4x4 on are full tori of cubes, {_V5P}"),
            "latency": _ICI_HOP,
            "device": Figure("tpu_v5p", "the chip that gives the machine its name"),
        },
        {"dims": "16x16x16"},
        Figure("6144", f"96 cubes, the largest slice of a pod of 8,960, {_V5P}"),
    ),
    "tpu_v5e": Preset(
        "TPU v5e slice: a 2D torus of up to 16x16 chips",
        "torus",
        {
            "bandwidth": Figure("400Gbps", "50 GB/s each way as in v4 (assumed)"),
            "latency": _ICI_HOP,
            "dims": Figure("16x16", "2D torus of 256 chips, brendanjameslynskey.github.io/Google_TPU_10_ICI_and_OCS"),
            "device": Figure("tpu_v5e", "the chip that gives the machine its name"),
        },
        {},
        Figure("256", "pod of 16x16, brendanjameslynskey.github.io/Google_TPU_10_ICI_and_OCS"),
    ),
    "dragonfly_plus_ndr": Preset(
        "Dragonfly+ of 64-port 400 Gb/s switches: groups of 32 leaves and 32 spines, 1,024 hosts and 1,024 global ports",
        "dragonfly_plus",
        {
            "k": Figure("64", f"Quantum-2 QM9700, itctshop.com/infiniband-switch-guide; groups as in {_DFP}"),
            "bandwidth": _NDR,
            "latency": _FABRIC_HOP,
            "global_latency": Figure(
                "1us", "a hop and 100 m of fibre at 5 ns/m, blog.ipspace.net/2021/04/switching-latency-relevant"
            ),
        },
        {"groups": "3"},
    ),
}

#: other names of the same machines: HGX are the boards inside DGX; the GPU's name alone means the usual box of eight
ALIASES = {f"{prefix}{gpu}": f"dgx_{gpu}" for prefix in ("hgx_", "") for gpu in ("a100", "h100", "h200", "b200")}
