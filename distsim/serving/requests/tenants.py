"""Several streams of requests as one, each a tenant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distsim.errors import ConfigError
from distsim.serving.requests.table import Requests, requests_of


def together(streams: Sequence[Requests]) -> Requests:
    """All requests in order of arrival (ties: in the order of the streams).

    Tenants keep their names, equal names are one tenant. Sessions and block numbers of different streams never meet: they share
    no prefixes. Raises ConfigError where streams number their prefixes by blocks of different sizes.
    """
    if not streams:
        raise ConfigError("no stream of requests", expected="at least one")
    sizes = {stream.hash_block for stream in streams if stream.hashes}
    if len(sizes) > 1:
        raise ConfigError(
            f"streams number their prefixes by {' and '.join(map(str, sorted(sizes)))} tokens", expected="blocks of one size"
        )
    names = tuple(dict.fromkeys(name for stream in streams for name in stream.names))
    arrival = np.concatenate([stream.arrival for stream in streams])
    order = np.argsort(arrival, kind="stable")
    place = np.empty(len(order) + 1, np.int64)
    place[order], place[-1] = np.arange(len(order)), -1
    tenant, session, after = [], [], []
    hashes: dict[int, list[int]] = {}
    rows = sessions = blocks = 0
    for stream in streams:
        tenant.append(np.array([names.index(name) for name in stream.names], np.int32)[stream.tenant])
        session.append(np.where(stream.session >= 0, stream.session + sessions, -1))
        after.append(np.where(stream.after >= 0, stream.after + rows, -1))
        highest = -1
        for row, numbers in stream.hashes.items():
            shifted = hashes[int(place[rows + row])] = [number + blocks for number in numbers]
            highest = max(highest, max(shifted, default=-1))
        rows, blocks = rows + len(stream), max(blocks, highest + 1)
        sessions += int(stream.session.max(initial=-1)) + 1
    joined = {
        name: np.concatenate([getattr(stream, name) for stream in streams])[order]
        for name in ("prompt", "output", "priority", "deadline", "think")
    }
    return requests_of(
        arrival[order], tenant=np.concatenate(tenant)[order], session=np.concatenate(session)[order],
        after=place[np.concatenate(after)[order]], hashes=hashes, hash_block=sizes.pop() if sizes else 16, names=names,
        source=" + ".join(stream.source for stream in streams),
        warnings=tuple(text for stream in streams for text in stream.warnings), **joined,
    )  # fmt: skip
