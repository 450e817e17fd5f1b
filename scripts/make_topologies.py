"""Writes the topology files that ship with distsim: ``python scripts/make_topologies.py [FOLDER]`` (default: topologies/).

They show the forms of a file of one's own: a spec with a name, graphs, and nodes of several types. Machines that exist are
presets (distsim/topology/presets.py), with the source of every figure.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

COMMAND = "python scripts/make_topologies.py"

SPECS = {
    "leaf_spine_3to1": (
        "two tiers of 64-port 400 Gb/s switches (Quantum-2 QM9700), three hosts sharing each up-link",
        "fat_tree:tiers=2,k=32,oversubscription=3,bandwidth=400Gbps,latency=500ns",
    ),
}

GRAPHS = {
    "two_racks.yaml": """\
description: two racks of eight GPUs, one leaf each, on two spines; the smallest file worth reading first
hosts: 16                       # gpu0 .. gpu15
switches: {leaf: 2, spine: 2}   # leaf0, leaf1, spine0, spine1
link_types:
  port: {bandwidth: 400Gbps, latency: 500ns}
  uplink: {bandwidth: 800Gbps, latency: 500ns}
links:
  - {from: "gpu[*]", to: "leaf[*]", type: port, pairs: blocks}   # gpu0-7 to leaf0, gpu8-15 to leaf1
  - {from: "leaf[*]", to: "spine[*]", type: uplink, pairs: all}  # every leaf to every spine
""",
    "dgx_pair_without_nvswitch.yaml": """\
description: two boxes of four GPUs in a full NVLink mesh; only GPUs 0 and 2 of a box have a port, the others use theirs
hosts: 8                        # host_forwarding is on by default: GPUs relay
switches: {leaf: 1}
link_types:
  nvlink: {bandwidth: 100GBps, latency: 500ns}
  port: {bandwidth: 200Gbps, latency: 500ns}
links:
  - {from: gpu0, to: "gpu[1-3]", type: nvlink}
  - {from: gpu1, to: "gpu[2-3]", type: nvlink}
  - {from: gpu2, to: gpu3, type: nvlink}
  - {from: gpu4, to: "gpu[5-7]", type: nvlink}
  - {from: gpu5, to: "gpu[6-7]", type: nvlink}
  - {from: gpu6, to: gpu7, type: nvlink}
  - {from: "gpu[0-6:2]", to: leaf0, type: port}
""",
    "hpn_dual_plane.yaml": """\
description: 64 GPUs with NVSwitch and two 200 Gb/s ports each, on two separate planes of leaves and spines (after HPN 7.0)
hosts: 64
switches: {nvswitch: 8, plane0.leaf: 8, plane1.leaf: 8, plane0.spine: 4, plane1.spine: 4}
link_types:
  nvlink: {bandwidth: 450GBps, latency: 500ns}
  port: {bandwidth: 200Gbps, latency: 500ns}
  uplink: {bandwidth: 400Gbps, latency: 500ns}
host_forwarding: false          # no GPU relays the traffic of another
links:
  - {from: "gpu[*]", to: "nvswitch[*]", type: nvlink, pairs: blocks}     # eight GPUs of a node
  - {from: "gpu[*]", to: "plane0.leaf[*]", type: port, pairs: cyclic}    # rails: GPU j of a node to leaf j
  - {from: "gpu[*]", to: "plane1.leaf[*]", type: port, pairs: cyclic}
  - {from: "plane0.leaf[*]", to: "plane0.spine[*]", type: uplink, pairs: all}
  - {from: "plane1.leaf[*]", to: "plane1.spine[*]", type: uplink, pairs: all}
""",
    "mixed_h100_a100.yaml": """\
description: 4 DGX H100 nodes, 8 DGX A100 nodes and 2 storage hosts on one fabric of 8 leaves and 4 spines
node_types:
  h100:                     # NVLink4, a 400 Gb/s port per GPU
    gpus: 8
    device: h100
    nvlink: {bandwidth: 450GBps, latency: 500ns}
    nics: {count: 8, bandwidth: 400Gbps, latency: 500ns, to: "leaf[*]", pairs: cyclic}
  a100:                     # NVLink3, a 200 Gb/s port per GPU
    gpus: 8
    device: a100
    nvlink: {bandwidth: 300GBps, latency: 500ns}
    nics: {count: 8, bandwidth: 200Gbps, latency: 500ns, to: "leaf[*]", pairs: cyclic}
  storage:                  # no GPUs: each node is one host, storage0 and storage1
    nics: {count: 2, bandwidth: 100Gbps, latency: 500ns, to: "leaf[0-1]", pairs: cyclic}
nodes: {h100: 4, a100: 8, storage: 2}
switches: {leaf: 8, spine: 4}
link_types:
  uplink: {bandwidth: 400Gbps, latency: 500ns}
  slow: {bandwidth: 25Gbps, latency: 500ns}
links:
  - {from: "leaf[*]", to: "spine[*]", type: uplink, pairs: all, count: 2}
  - {from: storage0, to: leaf7, type: slow}          # a third, slower port of one node alone
""",
}


def main(folder: Path) -> None:
    """Write all files and the README that records the command."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        f"{name}.yaml": yaml.safe_dump({"description": about, "spec": spec}, sort_keys=False, width=200)
        for name, (about, spec) in SPECS.items()
    }
    files.update(GRAPHS)
    for name, text in files.items():
        (folder / name).write_text(f"# made by: {COMMAND}\n{text}", encoding="utf-8")
    rows = [f"| `{name}` | {yaml.safe_load(text)['description']} |" for name, text in sorted(files.items())]
    readme = [
        "# Shipped topologies",
        "",
        f"Written by `{COMMAND}`; change that script, not these files. Use one by its bare name, from anywhere:",
        "`distsim topo two_racks.yaml`, `distsim run TRACE --topo mixed_h100_a100.yaml`. Machines (`dgx_h100`, `tpu_v4` ...)",
        "are presets and need no file: `distsim topo` lists them.",
        "",
        "| file | what it is |",
        "|---|---|",
        *rows,
    ]
    (folder / "README.md").write_text("\n".join(readme) + "\n", encoding="utf-8")
    print(f"{len(files)} topologies in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "topologies")
