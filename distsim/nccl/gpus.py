"""GPUs by name: what NCCL's topology search finds in a node of them, and the network that such nodes are usually sold with.

Rings of NVSwitch boxes come from the search's speed tables (NVIDIA/nccl 2.30.7 ``search.cc``): links x GB/s per link,
taken in equal channels. Usual networks: NVIDIA DGX data sheets (A100, H100, H200, B200, B300), GB200 and GB300 NVL72.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from distsim.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU as NCCL meets it.

    Attributes:
        generation: key of ``constants.GENERATIONS``.
        link: nvlink or pci: how the GPUs of a node are joined.
        rate: GB/s that all links of one GPU carry, as the search counts them.
        rings, ring_rate: channels and GB/s of each that the search finds in one node.
        per_node: GPUs of a node; domain: GPUs that share NVLink (more than a node on NVL72).
        nics, nic_rate: usual NICs of a node, GB/s of each.
        cpu: intel, amd or arm.
    """

    generation: str
    link: str
    rate: float
    rings: int
    ring_rate: float
    per_node: int = 8
    domain: int = 8
    nics: int = 8
    nic_rate: float = 50.0
    cpu: str = "intel"


_HOPPER = Gpu("hopper", "nvlink", 18 * 20.6, 12, 30.0)
_B200 = Gpu("blackwell", "nvlink", 18 * 40.1, 16, 45.0)
GPUS = {
    "v100": Gpu("volta", "nvlink", 6 * 20.0, 6, 20.0, nics=4, nic_rate=12.5),
    "a100": Gpu("ampere", "nvlink", 12 * 20.0, 12, 20.0, nic_rate=25.0, cpu="amd"),
    "a800": Gpu("ampere", "nvlink", 8 * 20.0, 8, 20.0, nic_rate=25.0, cpu="amd"),
    "h100": _HOPPER,
    "h200": _HOPPER,
    "h20": _HOPPER,
    "h800": Gpu("hopper", "nvlink", 8 * 20.6, 8, 20.0),
    "gh200": Gpu("hopper", "nvlink", 18 * 20.6, 12, 30.0, per_node=1, domain=1, nics=1, cpu="arm"),
    "b200": _B200,
    "b300": Gpu("blackwell", "nvlink", 18 * 40.1, 16, 45.0, nic_rate=100.0),
    "gb200": Gpu("blackwell", "nvlink", 18 * 40.1, 16, 45.0, 4, 72, 4, 50.0, "arm"),
    "gb300": Gpu("blackwell", "nvlink", 18 * 40.1, 16, 45.0, 4, 72, 4, 100.0, "arm"),
    # PCIe 4.0 x16 reads and writes at some 24 GB/s; a ring goes through host bridges at half of that
    "a100_pcie": Gpu("ampere", "pci", 24.0, 2, 12.0, domain=1, nics=2, nic_rate=25.0),
    "h100_pcie": Gpu("hopper", "pci", 48.0, 2, 24.0, domain=1, nics=2),
    "l40s": Gpu("ampere", "pci", 24.0, 2, 12.0, domain=1, nics=2, nic_rate=25.0),
    "l40": Gpu("ampere", "pci", 24.0, 2, 12.0, domain=1, nics=2, nic_rate=25.0),
    "l4": Gpu("ampere", "pci", 24.0, 2, 12.0, domain=1, nics=2, nic_rate=25.0),
    "a10": Gpu("ampere", "pci", 24.0, 2, 12.0, domain=1, nics=2, nic_rate=25.0),
}


def gpu_name(text: str, *, where: str = "") -> str:
    """The name in GPUS that a text means. Raises UnknownNameError.

    >>> gpu_name("NVIDIA A100-SXM4-80GB"), gpu_name("h100_sxm"), gpu_name("H100 PCIe"), gpu_name("GB200 NVL72")
    ('a100', 'h100', 'h100_pcie', 'gb200')
    """
    words = re.findall(r"[a-z0-9]+", text.lower())
    for word in words:
        if word in GPUS:
            return f"{word}_pcie" if "pcie" in words and f"{word}_pcie" in GPUS else word
    raise UnknownNameError("GPU", text, GPUS, where=where)
