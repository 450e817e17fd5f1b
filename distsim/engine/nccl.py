"""Collectives as NCCL runs them: ask its model for a plan, make the plan's schedule, put it on hosts.

What NCCL has no kernel for (gather, scatter, barrier) is left to distsim's own algorithms.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.schedule import Collective
from distsim.engine.task import CollectiveCall
from distsim.errors import ConfigError, UnknownNameError
from distsim.nccl.model import Calibration, plan
from distsim.nccl.plan import Plan
from distsim.nccl.schedules.build import SERVED, schedule_of
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.pace import Paced
from distsim.nccl.schedules.wires import Wires, wires_of
from distsim.nccl.system import DEFAULT_FABRIC, FABRICS, node_of_hosts, system_of_topology
from distsim.network.model import Transfers
from distsim.network.pattern import Pattern
from distsim.topology.graph import Topology

OPERATIONS = tuple(dict.fromkeys(operation for operations in SERVED.values() for operation in operations))
ALGORITHMS = tuple(name for name in SERVED if name != "p2p")
PROTOCOLS = ("ll", "ll128", "simple")
SWITCH = ("on", "off")
#: rows kept in remembered schedules and placements, all together (about 80 bytes each)
_REMEMBER = 4_000_000


@dataclass(frozen=True, slots=True)
class NcclOptions:
    """What NCCL is told.

    Attributes:
        algorithm, protocol: only these, as NCCL_ALGO and NCCL_PROTO do (each "": NCCL chooses). all_to_all has no choice.
        calibration: factors that replace the defaults of the GPU's generation.
        pxn: all_to_all between nodes goes by rail (as NCCL_PXN_DISABLE=0 has it).
        fabric: what the NICs are: a key of ``nccl.system.FABRICS``.
    """

    algorithm: str = ""
    protocol: str = ""
    calibration: Calibration | None = None
    pxn: bool = True
    fabric: str = DEFAULT_FABRIC

    @classmethod
    def parse(
        cls, collectives: str, algorithm: str | None = None, protocol: str | None = None, calibration: str | None = None, *,
        pxn: str | None = None, fabric: str | None = None, native: dict[str, bool] | None = None,
    ) -> NcclOptions | None:  # fmt: skip
        """From what the command line says; NCCL's own spelling (``NVLSTree``, ``LL128``) is understood.

        Args:
            collectives: native or nccl.
            algorithm, protocol, calibration: --nccl-algo, --nccl-proto, --calibration.
            pxn, fabric: --nccl-pxn (on or off), --nccl-fabric.
            native: options of distsim's own collectives -> whether they were given.

        Raises: UnknownNameError on a name, ConfigError on a calibration file that cannot be used and on options of the other
            kind of collectives.
        """
        if collectives != "nccl":
            ours = {"--nccl-algo": algorithm, "--nccl-proto": protocol, "--calibration": calibration, "--nccl-pxn": pxn,
                    "--nccl-fabric": fabric}  # fmt: skip
            idle = [name for name, value in ours.items() if value is not None]
            if idle:
                raise ConfigError(f"{', '.join(idle)} without --collectives nccl", fix="Add it.")
            return None
        idle = [name for name, given in (native or {}).items() if given]
        if idle:
            raise ConfigError(f"{', '.join(idle)} with --collectives nccl, which decides that by itself",
                              fix="Leave it out; --nccl-algo and --nccl-proto force NCCL's choice.")  # fmt: skip
        algorithm, protocol = algorithm or "", protocol or ""
        given = algorithm.lower()
        known = {name.replace("_", ""): name for name in ALGORITHMS}
        chosen = known.get(given.replace("_", ""), given)
        if chosen and chosen not in ALGORITHMS:
            raise UnknownNameError("NCCL algorithm", algorithm, ALGORITHMS, where="--nccl-algo")
        wire = protocol.lower()
        if wire and wire not in PROTOCOLS:
            raise UnknownNameError("NCCL protocol", protocol, PROTOCOLS, where="--nccl-proto")
        by_rail = (pxn or "on").lower()
        if by_rail not in SWITCH:
            raise UnknownNameError("setting", pxn or "", SWITCH, where="--nccl-pxn")
        network = (fabric or DEFAULT_FABRIC).lower()
        if network not in FABRICS:
            raise UnknownNameError("fabric", fabric or "", FABRICS, where="--nccl-fabric")
        loaded = None
        if calibration:
            from distsim.nccl.calibrate import load_calibration

            loaded = load_calibration(calibration)
        return cls(chosen, wire, loaded, by_rail == "on", network)


class NcclPlacer:
    """Makes NCCL's transfers on a topology. Schedules are remembered by what decides them, placements by their hosts.

    Args:
        topology: it has to say which GPUs its hosts are.
        stores: bytes that the network level stores before it forwards them (see ``network.model``).
    """

    def __init__(self, topology: Topology, stores: float = 0.0) -> None:
        self._topology = topology
        self._stores = stores
        self._paced: dict[tuple[object, ...], Paced] = {}
        self._patterns: dict[tuple[int, int], Pattern] = {}
        self._transfers: dict[tuple[object, ...], tuple[Transfers, str]] = {}
        self._held = 0

    @staticmethod
    def serves(operation: str) -> bool:
        """Whether NCCL has a kernel for it."""
        return operation in OPERATIONS

    def collective(
        self, call: CollectiveCall, hosts: NDArray[np.int32], options: NcclOptions, endpoint_ps: int = 0
    ) -> tuple[Transfers, str]:
        """Transfers of a collective whose member m sits on ``hosts[m]``, and what NCCL calls it: ``nccl ring/simple x24``.

        Raises: TopologyError where the topology does not say what NCCL needs to know, CollectiveError where NCCL or its
        schedules cannot serve the group.
        """
        key = (call.operation, call.bytes, call.root, hosts.tobytes(), options, endpoint_ps)
        found = self._transfers.get(key)
        if found is None:
            found = self._make(call, hosts, options, endpoint_ps)
            self._held += len(found[0].src)
            if self._held > _REMEMBER:
                self._paced.clear()
                self._patterns.clear()
                self._transfers.clear()
                self._held = len(found[0].src)
            self._transfers[key] = found
        return found

    def _make(
        self, call: CollectiveCall, hosts: NDArray[np.int32], options: NcclOptions, endpoint_ps: int
    ) -> tuple[Transfers, str]:
        from distsim.engine.placement import pattern_of

        members = hosts.tolist()
        if len(set(members)) < len(members):
            raise ConfigError("NCCL with several ranks on one GPU", where=call.label, expected="a host for every rank")
        grouping = Grouping.of(node_of_hosts(self._topology, members))
        wanted = Collective(call.operation, len(members), call.bytes, root=call.root)
        chosen = plan_of(wanted, self._topology, members, options)
        wires = wires_of(self._topology, hosts, grouping, self._stores)
        made = self._schedule(chosen, wanted, grouping, wires, options)
        pattern = self._patterns.get((id(made), endpoint_ps))
        if pattern is None:
            pattern = self._patterns[id(made), endpoint_ps] = pattern_of(made.timed(endpoint_ps), endpoint_ps)
        alone = None if endpoint_ps else chosen.time_ps
        name = f"nccl {chosen.algorithm}/{chosen.protocol} x{chosen.channels}" + ("" if grouping.even else " on uneven nodes")
        return dataclasses.replace(pattern.on(hosts), alone=alone), name

    def _schedule(self, chosen: Plan, wanted: Collective, grouping: Grouping, wires: Wires, options: NcclOptions) -> Paced:
        key = (chosen, wanted, grouping, wires, options.pxn)
        found = self._paced.get(key)
        if found is None:
            found = self._paced[key] = schedule_of(chosen, wanted, grouping, wires, pxn=options.pxn)
            self._held += len(found.schedule)
        return found


def plan_of(wanted: Collective, topology: Topology, hosts: list[int], options: NcclOptions) -> Plan:
    """NCCL's plan for a group whose member m sits on ``hosts[m]``. Raises as :meth:`NcclPlacer.collective`."""
    size = wanted.bytes * wanted.size if wanted.operation == "all_gather" else wanted.bytes
    algorithm, protocol = (options.algorithm, options.protocol) if wanted.operation != "all_to_all" else ("", "")
    system = system_of_topology(topology, hosts, fabric=options.fabric)
    return plan(wanted.operation, size, system, options.calibration, algorithm, protocol)
