"""Pools of equal replicas, and how they are made: scheduler, KV cache and iteration times from a specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from distsim.errors import ConfigError
from distsim.kernel.clock import Clock
from distsim.params import Parameters, parse, validated
from distsim.registry import lookup
from distsim.serving.deployment import Deployment
from distsim.serving.iteration import IterationTimes
from distsim.serving.kv.blocks import Blocks
from distsim.serving.kv.prefix import PrefixBlocks
from distsim.serving.kv.sizes import kv_blocks, token_bytes
from distsim.serving.kv.swap import swap_of
from distsim.serving.kv.tiers import tiers_of
from distsim.serving.kv.transfers import Transfers
from distsim.serving.lanes import GroupTimes, Lanes, LockstepReplica
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.scheduler import Scheduler, SchedulerParams
from distsim.serving.schedulers.vllm_v1 import VllmV1
from distsim.serving.speculation import Acceptance, SpeculativeTimes, speculation_of
from distsim.topology.graph import Topology


class Pool(Parameters):
    """Replicas that are alike."""

    name: str = Field("", description="for tables; default: by number")
    role: Literal["both", "prefill", "decode"] = Field("both", description="what its replicas do: prompts, generation, or both")
    replicas: int = Field(1, ge=0, description="how many; with autoscaling: at the start")
    scheduler: str = Field("vllm_v1", description="batching policy, NAME or NAME:key=value,...")
    times: str = Field("model", description="iteration times: model (shipped providers), vidur:file=... or profile:folder=...")
    kv_blocks: int | None = Field(None, description="KV blocks of a replica; default: what its memory leaves")
    kv_tiers: str | None = Field(None, description="below the GPU's memory: NAME:size=...,bandwidth=... joined by +")
    speculation: str | None = Field(None, description="draft:tokens=4,acceptance=0.7,cost=0.1 or mtp:tokens=1,acceptance=0.8")
    deployment: Deployment

    @classmethod
    def of(cls, flat: Mapping[str, Any]) -> Pool:
        """From flat fields, those of the deployment among them. Raises ConfigError, UnknownNameError."""
        fields = dict(flat)
        mine = {key: fields.pop(key) for key in list(fields) if key in cls.model_fields and key != "deployment"}
        return validated(cls, "pool", {**mine, "deployment": Deployment.of(**fields)})


def scheduler_options(text: str, usual: Mapping[str, Any] | None = None) -> tuple[type[Scheduler], Any]:
    """Class and parameters of ``NAME:key=value,...``; those of ``usual`` that it knows and that are not given are added.

    Raises UnknownNameError, ConfigError.
    """
    name, options = parse(text)
    found: type[Scheduler] = lookup("scheduler", name)
    fields = found.Params.model_fields
    more = {key: value for key, value in (usual or {}).items() if key in fields}
    if not issubclass(found, VllmV1):
        more.pop("max_num_seqs", None)  # other policies have defaults of their own
    if fields["block"].default != SchedulerParams.model_fields["block"].default:
        more.pop("block", None)  # a policy with blocks of its own
    return found, validated(found.Params, name, {**more, **options})


def make_scheduler(
    text: str, blocks: int, stages: int, hash_block: int = 0, usual: Mapping[str, Any] | None = None
) -> Scheduler:
    """A policy with a KV cache of its own: one that shares prefixes where the policy wants it and requests have any.

    hash_block: tokens that the requests' hashes number, 0 where they have none. usual: options that ``text`` may leave out.
    """
    found, params = scheduler_options(text, usual)
    shares = hash_block > 0 and getattr(params, "prefix_caching", False)
    kv = found.Cache(blocks, params.block, hash_block) if shares else Blocks(blocks, params.block)
    return found(params, kv, stages)


def _equip(scheduler: Scheduler, pool: Pool, acceptance: Acceptance | None) -> None:
    """Give a scheduler what lies below its cache, and what is drafted. Raises ConfigError where it cannot use it."""
    params, kv, deployment = scheduler.params, scheduler.kv, pool.deployment
    block_bytes = kv.block * max(token_bytes(deployment, stage) for stage in range(deployment.pp))
    swaps = getattr(params, "preemption", "recompute") == "swap"
    if swaps or pool.kv_tiers:
        scheduler.transfers = Transfers()
    if swaps:
        assert scheduler.transfers is not None
        scheduler.swap = swap_of(params, block_bytes, scheduler.transfers, kv.block)
    if pool.kv_tiers:
        assert scheduler.transfers is not None
        if not isinstance(kv, PrefixBlocks):
            raise ConfigError(
                f"{pool.scheduler} finds no prefixes to keep", where=f"kv_tiers={pool.kv_tiers}",
                expected="a policy with prefix_caching, and requests that share prefixes: --sessions turns=4,prefixes=8, or a "
                "file with a column hashes (docs/requests.md)",
            )  # fmt: skip
        kv.tiers = tiers_of(pool.kv_tiers, block_bytes * kv.weight, scheduler.transfers, kv.hash_block)
    if acceptance is not None:
        if not scheduler.speculates:
            raise ConfigError(f"{pool.scheduler} knows no speculative decoding", where=f"speculation={pool.speculation}")
        scheduler.speculate(acceptance)


def usual_options(deployment: Deployment) -> dict[str, int]:
    """What a deployment's software has for a scheduler."""
    return {
        "block": deployment.block_tokens, "max_num_batched_tokens": deployment.budget, "max_num_seqs": deployment.sequences,
    }  # fmt: skip


def make_times(pool: Pool, topology: Topology | None) -> IterationTimes:
    """The provider that a pool asks for. Raises UnknownNameError, ConfigError."""
    name, options = parse(pool.times)
    component = lookup("iteration", name)
    if name == "model":
        if options:
            raise ConfigError("takes no options", where=pool.times, fix="The deployment's fields say all.")
        made: IterationTimes = component(pool.deployment, topology)
        return made
    given = validated(component.Params, name, options).model_dump()
    made = component(pool.deployment, topology, **given) if getattr(component, "of_deployment", False) else component(**given)
    return made


def gpus_of(pool: Pool, times: IterationTimes) -> int:
    """GPUs of one replica."""
    return int(getattr(times, "ranks", pool.deployment.ranks))


def _together(pool: Pool, times: Any) -> Any:
    if not hasattr(times, "group_steady"):
        raise ConfigError(
            f"times={pool.times} knows no attention data parallelism (dp={pool.deployment.dp})", expected="times=model or afd"
        )
    return GroupTimes(times)


def make_replicas(
    pool: Pool, count: int, first: int, clock: Clock, log: IterationLog, ended: Callable[[Request, Replica], None],
    times: IterationTimes, hash_block: int = 0, stepped: bool = False,
) -> list[Replica]:  # fmt: skip
    """``count`` replicas of a pool, numbered from ``first``. Raises OutOfMemoryError where the model does not fit."""
    blocks = pool.kv_blocks
    lanes, usual = pool.deployment.dp, usual_options(pool.deployment)
    if blocks is None:
        blocks = times.kv_blocks() if hasattr(times, "kv_blocks") else kv_blocks(pool.deployment)
        blocks = blocks * pool.deployment.block_tokens // scheduler_options(pool.scheduler, usual)[1].block
    acceptance = None
    if pool.speculation is not None:
        if lanes > 1:
            _together(pool, times)  # refuses what knows no lanes
        draft = speculation_of(pool.speculation, pool.deployment.spec.layers)
        acceptance, times = Acceptance(draft), SpeculativeTimes(times, draft)
    made = []
    for number in range(first, first + count):
        schedulers = [make_scheduler(pool.scheduler, blocks, times.stages, hash_block, usual) for _ in range(lanes)]
        for scheduler in schedulers:
            _equip(scheduler, pool, acceptance)
        if lanes == 1:
            replica = Replica(number, clock, schedulers[0], times, log, ended, stepped)
        else:
            replica = LockstepReplica(number, clock, Lanes(schedulers), _together(pool, times), log, ended, stepped)
        replica.role = pool.role
        made.append(replica)
    return made
