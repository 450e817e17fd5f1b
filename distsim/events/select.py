"""Which links, switches, hosts and ranks a name in an events file means.

Nodes: ``leaf3``, ``gpu[0-7]``, ``gpu[0-31:8]`` (every eighth), ``gpu[0,2]``; ``*`` and ``?`` stand for any characters.
Links: ``leaf0-spine1`` is the cables between two (sets of) nodes in both directions, ``leaf0->spine1`` one direction only;
``rail`` is a whole domain of links (as ``distsim topo`` lists them); ``spine3`` is every link at a node.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.topology.graph import Topology

_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


def links(topology: Topology, names: str | list[str], where: str) -> NDArray[np.int64]:
    """Ids of the directed links that the names mean, ascending. Raises ConfigError, with near names, where there are none."""
    found = [_links(topology, name.strip(), where) for name in ([names] if isinstance(names, str) else names)]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)


def switches(topology: Topology, names: str | list[str], where: str) -> list[int]:
    """Node numbers of switches. Raises ConfigError on a host or an unknown name."""
    found = _nodes(topology, names, where, range(topology.hosts, topology.nodes), "switch")
    if not found:
        raise ConfigError("no switch is named", where=where)
    return found


def hosts(topology: Topology, names: str | list[str], where: str) -> list[int]:
    """Host numbers. Raises ConfigError on a switch or an unknown name."""
    found = _nodes(topology, names, where, range(topology.hosts), "host")
    if not found:
        raise ConfigError("no host is named", where=where)
    return found


def ranks(named: int | str | list[int], count: int, where: str) -> list[int]:
    """Ranks of ``5``, ``"0-7,12"``, ``"0-31:8"`` or ``[1, 2]``, ascending. Raises ConfigError on one that is not there."""
    if isinstance(named, str):
        found = [number for part in named.split(",") for number in _range(part, named, where)]
    else:
        found = [named] if isinstance(named, int) else list(named)
    wrong = [number for number in found if not 0 <= number < count]
    if wrong or not found:
        said = f"there is no rank {wrong[0]}" if wrong else "no rank is named"
        near = [str(min(max(wrong[0], 0), count - 1))] if wrong and count else []
        raise ConfigError(said, where=where, near=near, expected=f"ranks 0 to {count - 1}")
    return sorted(set(found))


def listed(numbers: Sequence[int], prefix: str = "rank") -> str:
    """Numbers in words.

    >>> listed([0, 1, 2, 5]), listed([3])
    ('ranks 0-2, 5', 'rank 3')
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:8]]
    more = f" and {sum(b - a + 1 for a, b in runs[8:])} more" if len(runs) > 8 else ""
    return f"{prefix}{'s' if len(numbers) != 1 else ''} {', '.join(shown)}{more}"


def _links(topology: Topology, name: str, where: str) -> NDArray[np.int64]:
    by_domain = [index for index, domain in enumerate(topology.domains) if fnmatchcase(domain, name)]
    if by_domain:
        return np.flatnonzero(np.isin(topology.link_domain, by_domain))
    everyone = range(topology.nodes)
    src, dst = topology.link_src, topology.link_dst
    # NOTE: names may hold a dash themselves, so every dash is tried
    best: tuple[str, str] | None = None
    for cut in re.finditer(r"->|-", name):
        one, other = name[: cut.start()].strip(), name[cut.end() :].strip()
        if not one or not other or ("[" in one and "]" not in one):
            continue
        left, right = _match(topology, one, everyone, where), _match(topology, other, everyone, where)
        best = best or (one, other)
        if left and right:
            there = np.isin(src, left) & np.isin(dst, right)
            if cut.group() == "-":
                there |= np.isin(src, right) & np.isin(dst, left)
            if not there.any():
                neighbours = np.unique(dst[np.isin(src, left)])[:4]
                near = [f"{topology.node_names[left[0]]}-{topology.node_names[node]}" for node in neighbours]
                raise ConfigError(f"no link joins {one} and {other}", where=where, near=near)
            return np.flatnonzero(there)
    at = _match(topology, name, everyone, where)
    if at:
        return np.flatnonzero(np.isin(src, at) | np.isin(dst, at))
    near = [n for part in (best or (name,)) for n in _near(part, (*topology.node_names, *topology.domains))]
    raise ConfigError(
        f"{name!r} names no link of {topology.name}", where=where, near=near,
        expected=f"NODE-NODE, NODE->NODE, a node, or a domain ({', '.join(topology.domains)})",
    )  # fmt: skip


def _nodes(topology: Topology, names: str | list[str], where: str, among: range, kind: str) -> list[int]:
    found: list[int] = []
    for name in [names] if isinstance(names, str) else names:
        here = _match(topology, name.strip(), among, where)
        if not here:
            near = _near(name, [topology.node_names[node] for node in among])
            raise ConfigError(f"there is no {kind} {name!r} in {topology.name}", where=where, near=near)
        found += here
    return found


def _match(topology: Topology, pattern: str, among: range, where: str) -> list[int]:
    """Nodes of a pattern, ascending. Raises ConfigError on an unreadable range."""
    fits = _pattern(pattern, where)
    return [node for node in among if fits(topology.node_names[node])]


def _pattern(text: str, where: str) -> Callable[[str], bool]:
    """A test for names."""
    pieces, sets = "", []
    for part in re.split(r"(\[[^\]]*\])", text):
        if part == "[*]":
            pieces += r"\d+"
        elif part.startswith("[") and part.endswith("]"):
            sets.append({str(number) for piece in part[1:-1].split(",") for number in _range(piece, text, where)})
            pieces += r"(\d+)"
        else:
            pieces += re.escape(part).replace(r"\*", ".*").replace(r"\?", ".")
    compiled = re.compile(pieces)

    def fits(name: str) -> bool:
        match = compiled.fullmatch(name)
        return match is not None and all(number in wanted for number, wanted in zip(match.groups(), sets, strict=True))

    return fits


def _range(part: str, whole: str, where: str) -> range:
    match = _RANGE.fullmatch(part.strip())
    if match is None or match.group(3) == "0" or (match.group(2) and int(match.group(2)) - int(match.group(1)) > 10_000_000):
        raise ConfigError(f"{whole!r} has an unreadable range {part!r}", where=where, expected="3, 0-7 or 0-31:8")
    first, last, step = match.groups()
    return range(int(first), int(last or first) + 1, int(step or 1))


def _near(name: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=3, cutoff=0.5)
