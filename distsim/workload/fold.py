"""Folding: which ranks of a trace are alike, so that one of each kind can be simulated for all.

Colour refinement (Weisfeiler and Leman; Cardon and Crochemore 1982) over ranks, instances of communicators, images (what a
communication puts on links) and links. Ranks keep one colour only if they run one program and meet ranks, instances and images
of the same colours in the same roles. An image's colour tells what it takes alone, who takes part, and the set of colours of
the links that it crosses and that can be full; a link's colour tells how much of it images of each colour use. The result is an
equitable partition, for which the coflow network's arithmetic is exact: members of a class do the same at every instant.

Links that can never be full, whatever meets on them, are not looked at; of links of one colour, one speaks for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.topology.equal_cost import mix
from distsim.trace.graph import TaskGraph
from distsim.workload.images import Images
from distsim.workload.instances import Instances, Ints, Peers, Ways

_Colours = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Classes, numbered by their first members.

    Attributes:
        rank_class: class of every rank; representative: first rank of every class; multiplicity: ranks of every class.
        instance_class, image_class: class of every instance and image; ``*_first``: the first of each class.
        link_class: class of every link that can be full, -1 elsewhere; link_first: the first of each.
        reasons: what kept ranks apart, a sentence for each step at which classes were split.
    """

    rank_class: Ints
    representative: Ints
    multiplicity: Ints
    instance_class: Ints
    instance_first: Ints
    image_class: Ints
    image_first: Ints
    link_class: Ints
    link_first: Ints
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.representative)


def fold(graph: TaskGraph, groups: Instances, ways: Peers, images: Images, *, folding: bool = True) -> Fold:
    """Classes of ranks, instances, images and links. folding: False: every rank is a class of its own."""
    refinement = _Refinement(graph, groups, ways, images)
    reasons = []
    if folding:
        count = _count(refinement.rank)
        for level, why in (
            (0, "what their communicators and peers are"),
            (1, "where they sit: their communication takes other times even on idle links"),
            (2, "the links that their communication shares with others"),
        ):
            refinement.settle(level)
            found = _count(refinement.rank)
            if found > count:
                reasons.append(f"{count:,} class{'es' if count > 1 else ''} of ranks became {found:,} by {why}")
            count = found
        programs = len(np.unique(graph.rank_program))
        reasons.insert(0, f"{graph.ranks:,} ranks run {programs:,} program{'s' if programs > 1 else ''}")
    else:
        refinement.rank = _hash(np.arange(graph.ranks, dtype=np.uint64))
        refinement.settle(2)
        reasons.append("not folded: every rank is simulated")
    rank_class, representative, multiplicity = _numbered(refinement.rank)
    instance_class, instance_first, _ = _numbered(refinement.instance)
    image_class, image_first, _ = _numbered(refinement.image)
    link_class = np.full(len(images.full), -1, np.int64)
    numbers, first, _ = _numbered(refinement.link_colours())
    link_class[refinement.links] = numbers
    return Fold(
        rank_class, representative, multiplicity, instance_class, instance_first, image_class, image_first, link_class,
        refinement.links[first] if len(first) else first, tuple(reasons),
    )  # fmt: skip


class _Refinement:
    """Colours, 64-bit hashes that only ever get finer. Two that differ in one round differ in all later ones."""

    def __init__(self, graph: TaskGraph, groups: Instances, ways: Peers, images: Images) -> None:
        self._groups, self._ways, self._images = groups, ways, images
        self.rank = _hash(graph.rank_program.astype(np.uint64), ways.pattern.astype(np.uint64))
        self.instance = _hash(groups.group.astype(np.uint64))
        # what an image is of: its instance, or its sender's and receiver's expressions
        self.image = np.zeros(len(images), np.uint64)
        for number, key in enumerate(sorted(images.collective)):
            mine = images.collective[key]
            self.image[mine[mine >= 0]] = mix(np.array([number + 1], np.uint64))[0]
        sends = ways.sends
        self.image[images.message] = _hash(sends.slot.astype(np.uint64), (sends.partner + 1).astype(np.uint64), np.uint64(7))
        self._owners = {key: np.flatnonzero(found >= 0) for key, found in images.collective.items()}
        # crossings of links that can be full, by image and by link
        shared = images.full[images.link]
        self._image, link = images.image[shared], images.link[shared]
        self._coefficient = images.coefficient[shared].astype(np.uint64)
        self.links, self._link = np.unique(link, return_inverse=True)
        self._link = self._link.ravel()
        self._order = np.argsort(self._link, kind="stable")
        self._first = np.searchsorted(self._link[self._order], np.arange(len(self.links)))

    def settle(self, level: int) -> None:
        """Refine until nothing changes. level: 0: by who meets whom; 1: by times alone too; 2: by links too."""
        images = self._images
        if level == 1:
            self.image = _hash(self.image, images.taken.astype(np.uint64))
        before = (-1, -1, -1)
        while True:
            found = (_count(self.rank), _count(self.instance), _count(self.image))
            if found == before:
                return
            before = found
            self._round(links=level == 2)

    def _round(self, *, links: bool) -> None:
        groups, ways, images = self._groups, self._ways, self._images
        instance = self.instance
        if len(groups):
            met = np.add.reduceat(mix(self.rank[groups.members]), groups.ptr[:-1])
            instance = _hash(instance, met)
        image = self.image
        owner = np.zeros(len(images), np.uint64)
        for key, own in self._owners.items():
            owner[images.collective[key][own]] = self.instance[own]
        owner[images.message] = _hash(self.rank[ways.sends.rank], self.rank[ways.sends.peer])
        image = _hash(image, owner)
        if links and len(self._image):
            image = _hash(image, self._crossed(self.link_colours()))
        # what instances learn from their images, ranks from their instances and peers
        for number, key in enumerate(sorted(self._owners)):
            own = self._owners[key]
            add = np.zeros(len(instance), np.uint64)
            add[own] = _hash(self.image[images.collective[key][own]], np.uint64(number))
            instance = _hash(instance, add)
        rank = self.rank
        for group, of in sorted(groups.of.items()):
            met = np.zeros(len(rank), np.uint64)
            met[of >= 0] = self.instance[of[of >= 0]]
            rank = _hash(rank, met, np.uint64(group + 2))
        sent = _hash(self._other(ways.sends), self.image[images.message])
        for side, what in ((ways.sends, sent), (ways.receives, self._other(ways.receives))):
            heard = np.zeros(len(rank), np.uint64)
            np.add.at(heard, side.rank, mix(what))
            rank = _hash(rank, heard)
        self.rank, self.instance, self.image = rank, instance, image

    def _other(self, side: Ways) -> _Colours:
        return _hash(side.slot.astype(np.uint64), (side.partner + 1).astype(np.uint64), self.rank[side.peer])

    def link_colours(self) -> _Colours:
        """Of every link that can be full: how much of it images of each colour use."""
        if not len(self.links):
            return np.zeros(0, np.uint64)
        # linear in the coefficients: many images of one colour count as one with the sum
        weighted = mix(self.image[self._image]) * self._coefficient
        return mix(np.add.reduceat(weighted[self._order], self._first))

    def _crossed(self, link: _Colours) -> _Colours:
        """Per image: the set of colours of its links."""
        colours = link[self._link]
        order = np.lexsort((colours, self._image))
        image, colours = self._image[order], colours[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (image[1:] != image[:-1]) | (colours[1:] != colours[:-1])
        found = np.zeros(len(self.image), np.uint64)
        np.add.at(found, image[new], mix(colours[new]))
        return found


def _hash(*parts: _Colours | np.uint64) -> _Colours:
    """One colour of several, in order."""
    found = np.asarray(parts[0], np.uint64)
    with np.errstate(over="ignore"):
        for part in parts[1:]:
            found = mix(found * np.uint64(0x9E3779B97F4A7C15) + np.asarray(part, np.uint64) + np.uint64(1))
        return mix(found + np.uint64(0x632BE59BD9B4E019))


def _count(colours: _Colours) -> int:
    return len(np.unique(colours))


def _numbered(colours: _Colours) -> tuple[Ints, Ints, Ints]:
    """(class of every element, first of every class, size of every class), classes in the order of their firsts."""
    _, first, which, size = np.unique(colours, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return number[which.ravel()].astype(np.int64), first[order].astype(np.int64), size[order].astype(np.int64)
