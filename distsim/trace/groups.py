"""Communicator groups: Chakra's groups file ``{"<id>": [ranks...]}``, and the instances of rank-relative groups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from distsim.errors import TraceError
from distsim.trace.graph import Group


def parse_groups(data: bytes | str, where: str) -> dict[str, tuple[int, ...]]:
    """Group id -> ranks of a groups file. TraceError where it is not one, or a rank is negative or listed twice."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"is not JSON ({error})", where=where) from None
    if not isinstance(document, dict):
        raise TraceError("is not a groups file", where=where, expected='an object {"<group id>": [ranks...]}')
    groups: dict[str, tuple[int, ...]] = {}
    for name, ranks in document.items():
        if not isinstance(ranks, list) or not all(isinstance(r, int) and not isinstance(r, bool) for r in ranks):
            raise TraceError(f"group {name!r} is not a list of ranks", where=where, expected='{"<group id>": [ranks...]}')
        if any(rank < 0 for rank in ranks):
            raise TraceError(f"group {name!r} lists rank {min(ranks)}, which is negative", where=where)
        if len(set(ranks)) != len(ranks):
            twice = next(r for k, r in enumerate(ranks) if r in ranks[:k])
            raise TraceError(f"group {name!r} lists rank {twice} twice", where=where)
        groups[name] = tuple(ranks)
    return groups


def format_groups(groups: Mapping[str, Sequence[int]]) -> bytes:
    """The groups file."""
    return json.dumps({name: list(ranks) for name, ranks in groups.items()}).encode()


def absolute(name: str, ranks: tuple[int, ...]) -> Group:
    """A group with one instance."""
    return Group(name, dict.fromkeys(ranks, ranks))


def relative(name: str, size: int, stride: int, ranks: int, where: str = "") -> Group:
    """The group that splits all ranks into instances of ``size`` ranks, ``stride`` apart.

    >>> relative("tp", 2, 1, 4).members[3], relative("dp", 2, 2, 4).members[3]
    ((2, 3), (1, 3))
    """
    if ranks % (size * stride):
        raise TraceError(
            f"group {name!r} of {size} ranks with stride {stride} does not divide {ranks} ranks", where=where,
            expected=f"a multiple of {size * stride} ranks",
        )  # fmt: skip
    members: dict[int, tuple[int, ...]] = {}
    for base in range(0, ranks, size * stride):
        for first in range(base, base + stride):
            instance = tuple(range(first, first + size * stride, stride))
            members.update(dict.fromkeys(instance, instance))
    return Group(name, members)


def partition(name: str, instances: Iterable[Sequence[int]], where: str = "") -> Group:
    """A group with these instances. TraceError where a rank is in two of them."""
    members: dict[int, tuple[int, ...]] = {}
    for ranks in instances:
        instance = tuple(ranks)
        for rank in instance:
            if rank in members:
                raise TraceError(f"group {name!r} lists rank {rank} twice", where=where)
            members[rank] = instance
    return Group(name, members)


def instances(group: Group) -> list[tuple[int, ...]]:
    """Distinct instances, by lowest rank."""
    return sorted(set({id(members): members for members in group.members.values()}.values()))


def files_groups(groups: Iterable[Group]) -> dict[str, tuple[int, ...]]:
    """The groups as a groups file can say it: a group of several instances gives ``name``, ``name@1``, ``name@2`` ..."""
    named: dict[str, tuple[int, ...]] = {}
    for group in groups:
        for k, members in enumerate(instances(group)):
            named[instance_name(group, k)] = members
    return named


def instance_name(group: Group, index: int) -> str:
    """Name of an instance in a groups file."""
    return group.name if index == 0 else f"{group.name}@{index}"
