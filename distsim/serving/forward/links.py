"""Collectives and messages of one replica on idle links: NCCL's closed form, and the systems' own all-reduce for small ones."""

from __future__ import annotations

from distsim.errors import CollectiveError, TopologyError, UnknownNameError
from distsim.nccl.gpus import GPUS, gpu_name
from distsim.nccl.model import plan as nccl_plan
from distsim.nccl.system import System, system_of, system_of_topology
from distsim.serving.deployment import Deployment
from distsim.serving.forward.allreduce import LARGEST, constants, seconds
from distsim.topology.graph import Topology
from distsim.units import PS_PER_S

#: a send between GPUs that NCCL is not known to run on, bytes/s and s: PCIe 4.0 x16
_PCIE, _PCIE_LATENCY = 24e9, 10e-6


class Links:
    """Durations of a replica's communications, ps, by operation, per-rank input bytes and communicator.

    Ranks: tensor parallel ones are neighbours, then data parallel, then stages; on hosts 0, 1, 2 ... of a topology, or, without
    one, in the machines that the GPU is usually sold in. Communicators: tp, dp, ep (all ranks of a stage), pp.
    """

    def __init__(self, deployment: Deployment, topology: Topology | None = None) -> None:
        """Raises TopologyError where the topology has fewer hosts than the replica ranks."""
        self._deployment = deployment
        self._topology = topology
        if topology is not None and topology.hosts < deployment.ranks:
            raise TopologyError(f"{topology.hosts} hosts for {deployment.ranks} ranks", where=topology.name)
        self._systems: dict[str, System | None] = {}
        self._known: dict[tuple[str, int, str], int] = {}

    def ranks(self, group: str) -> tuple[int, ...]:
        """Ranks of the communicator that rank 0 is in."""
        one = self._deployment
        inner = one.tp * one.dp
        ranks = {
            "tp": range(one.tp), "dp": range(0, inner, one.tp), "ep": range(inner),
            "pp": range(0, inner * min(one.pp, 2), inner),
        }  # fmt: skip
        return tuple(ranks[group])

    def time(self, operation: str, size: int, group: str) -> int:
        """ps. Raises CollectiveError, TopologyError where no closed form serves."""
        key = (operation, size, group)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._time(operation, size, group)
        return found

    def _time(self, operation: str, size: int, group: str) -> int:
        n = len(self.ranks(group))
        if n == 1 or size <= 0:
            return 0
        system = self._system(group)
        if system is None:  # nothing is known of the links: a ring of sends
            steps = {"all_reduce": 2 * (n - 1)}.get(operation, n - 1)
            part = size if operation in ("all_gather", "send") else size / n
            return round(steps * (_PCIE_LATENCY + part / _PCIE) * PS_PER_S)
        if operation == "send":
            return nccl_plan("send_recv", size, system).time_ps
        found = nccl_plan(operation, size * n if operation == "all_gather" else size, system).time_ps
        if operation == "all_reduce" and system.nodes == 1 and size <= LARGEST:
            shots = constants(self._deployment.software.all_reduce, system.gpu)
            if shots is not None:
                found = min(found, round(seconds(size, n, shots) * PS_PER_S))
        return found

    def _system(self, group: str) -> System | None:
        if group not in self._systems:
            self._systems[group] = self._find(group)
        return self._systems[group]

    def _find(self, group: str) -> System | None:
        ranks = self.ranks(group)
        try:
            if self._topology is not None:
                return system_of_topology(self._topology, list(ranks))
            name = gpu_name(self._deployment.device.name)
            box = GPUS[name].per_node
            boxes = len({rank // box for rank in ranks})
            return system_of(name, len(ranks), boxes)
        except (UnknownNameError, TopologyError):  # no GPU that NCCL is known to run on
            return None
        except CollectiveError:  # ranks not even over boxes
            return system_of(name, len(ranks), len(ranks))
