"""What operators do to a service, from the texts of a specification: admission, rate limits, failures, autoscaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distsim.errors import ConfigError
from distsim.serving.fleet import Pool
from distsim.serving.operations.admission import Admission, AdmissionParams, admission, rates
from distsim.serving.operations.autoscaling import Autoscaling, autoscaler, bounded
from distsim.serving.operations.failures import Failures, failures
from distsim.serving.operations.startup import startup_time
from distsim.serving.replica import Replica
from distsim.serving.requests.table import Requests
from distsim.serving.service import Service


class Control:
    """States: read; then attached to a service and its replicas; then started. Raises ConfigError, UnknownNameError when read.

    gate: what requests pass; None: nothing. counts: what came of it all, and why requests were dropped.
    """

    def __init__(
        self, table: Requests, pools: Sequence[Pool], *, admit: str | None = None, rate_limit: str | None = None,
        failing: str | None = None, autoscale: str | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        """Texts as ServeSpec has them."""
        params = admission(admit or "queue")
        self.gate = None
        if admit or rate_limit or table.deadline.any():
            self.gate = Admission(params, rates(rate_limit) if rate_limit else None, table.names)
        self._pools, self._seed = pools, seed
        self._plan = failures(failing) if failing else None
        self._policy = autoscaler(autoscale) if autoscale else None
        self._service: Service | None = None
        self._failures: Failures | None = None
        self._autoscaling: Autoscaling | None = None
        self._check(params)
        self.scaled = -1 if self._policy is None else _pool_named(self._policy[1].pool, pools)  #: number of the pool that is

    def _check(self, params: AdmissionParams) -> None:
        """Replicas that share the work on one request live and die together here: what is not simulated is refused."""
        if all(pool.role == "both" for pool in self._pools):
            return
        for what, given in (("failures", self._plan), ("autoscale", self._policy), ("admission with abort", params.abort)):
            if given:
                raise ConfigError(f"{what} beside pools of roles prefill and decode", expected="pools of role both")

    def most(self, number: int, gpus: Sequence[int], hosts: int) -> int:
        """Replicas of a pool that may ever run. gpus: of one replica, by pool; hosts: GPUs there are. Raises ConfigError."""
        pool = self._pools[number]
        if self._policy is None or number != self.scaled:
            return pool.replicas
        others = sum(one.replicas * each for at, (one, each) in enumerate(zip(self._pools, gpus, strict=True)) if at != number)
        return max(pool.replicas, bounded(self._policy[1], (hosts - others) // gpus[number]))

    def attach(self, service: Service, replicas: Sequence[Replica], pool_of: Mapping[int, int]) -> None:
        """pool_of: number of a replica -> number of its pool. Those beyond what its pool starts with wait to be launched."""
        self._service = service
        if self._policy is not None:
            policy, params = self._policy
            own = [replica for replica in replicas if pool_of[replica.number] == self.scaled]
            for replica in own[self._pools[self.scaled].replicas :]:
                replica.spare()
            startup = startup_time(params, self._pools[self.scaled].deployment)
            self._autoscaling = Autoscaling(policy, params, service, own, startup)
        if self._plan is not None:
            plan = self._plan
            last = len(replicas) - 1
            if plan.replicas - 1 > last:
                raise ConfigError(f"there is no replica {plan.replicas - 1}", where="failures", expected=f"0 to {last}")

            def startup_of(replica: Replica) -> int:
                return startup_time(plan.policy, self._pools[pool_of[replica.number]].deployment)

            self._failures = Failures(plan, service, self._seed, startup_of)

    def start(self) -> None:
        """After Service.start, before the clock runs."""
        if self._failures is not None:
            self._failures.start()
        if self._autoscaling is not None:
            self._autoscaling.start()

    @property
    def counts(self) -> dict[str, int]:
        """After the run: what happened, and dropped requests by reason."""
        service = self._service
        assert service is not None
        found = {f"dropped: {reason}": count for reason, count in sorted(service.reasons.items())}
        if service.waited:
            found["waited at the door"] = service.waited
        if self.gate is not None and self.gate.delayed:
            found["held back by rate limits"] = self.gate.delayed
        if self._failures is not None:
            found |= {"failures": self._failures.failed, "rerouted": service.rerouted}
            if self._failures.missed:
                found["failures of replicas that did not run"] = self._failures.missed
        if self._autoscaling is not None:
            found |= {"launched": self._autoscaling.launched, "drained": self._autoscaling.drained}
        return found


def fewest(autoscale: str) -> int:
    """Replicas that a scaled pool starts with where it is not said. Raises ConfigError, UnknownNameError."""
    params = autoscaler(autoscale)[1]
    return max(params.min, 1)


def _pool_named(name: str, pools: Sequence[Pool]) -> int:
    if not name and len(pools) == 1:
        return 0
    names = [pool.name for pool in pools]
    if name not in names or not name:
        raise ConfigError(
            f"no pool {name!r} to scale" if name else "which pool to scale", where="autoscale",
            expected=f"pool= one of {', '.join(filter(None, names)) or '(name the pools)'}",
        )  # fmt: skip
    return names.index(name)


