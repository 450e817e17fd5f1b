"""Routes of pairs of hosts, asked of the topology once per distinct pair: a million transfers over a thousand pairs cost
a thousand routes and one hash probe each.

Where routing offers several ways, (pair, lane) is what is numbered: the table knows lane l of a destination as the host
``dst + hosts * l``. Where transfers choose their way, all lanes of a pair have consecutive numbers, from lane 0 on.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.kernel.jit import kernel
from distsim.network.columns import Columns
from distsim.network.model import Transfers
from distsim.network.transfers import pair_hosts
from distsim.topology.graph import Paths, Topology
from distsim.topology.lanes import choices_of


@kernel
def number_pairs(
    row: int, src: Any, dst: Any, table: Any, pair_src: Any, pair_dst: Any, count: int, out: Any
) -> tuple[int, int]:
    """Write the pair number of rows ``row ...`` to ``out``, giving new pairs the next numbers. Returns (row reached, count):
    it stops early when the open-addressing ``table`` (pair number + 1, 0 = free, a power of two long) is half full."""
    mask = len(table) - 1
    rows = len(src)
    while row < rows:
        s = src[row]
        d = dst[row]
        # NOTE: both factors are odd and below 2^31: the products stay below 2^62, and a constant s or d cannot cluster.
        mixed = (s * 1640531527) ^ (d * 1181783497)
        at = (mixed ^ (mixed >> 17)) & mask
        found = table[at]
        while found != 0 and (pair_src[found - 1] != s or pair_dst[found - 1] != d):
            at = (at + 1) & mask
            found = table[at]
        if found == 0:
            if 2 * count > mask:
                break
            pair_src[count] = s
            pair_dst[count] = d
            count += 1
            found = count
            table[at] = found
        out[row] = found - 1
        row += 1
    return row, count


class PathTable:
    """Routes known so far. Pair p goes over ``links["id"][first[p] : first[p + 1]]`` with ``first = pairs["first"]``.

    ``links`` row 0 is padding: the entry before a route's first always exists.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.choices = choices_of(topology)  #: consecutive routes among which a transfer chooses
        if topology.hosts * (topology.ways + self.choices + 1) >= 1 << 31:
            raise ConfigError(f"{topology.ways} ways between {topology.hosts} hosts are too many", fix="Lower paths or qps.")
        self.count = 0  #: pairs known
        self.pairs = Columns(17, first="i8", src="i4", dst="i4")
        self.pairs["first"][0] = 1
        self.links = Columns(1, id="i4")
        self._table = Columns(32, pair="i4")
        self._work = 0

    @property
    def compiled(self) -> bool:
        """Whether columns are arrays."""
        return self.pairs.compiled

    def compile(self) -> None:
        """Arrays from now on."""
        for columns in (self.pairs, self.links, self._table):
            columns.compile()

    def change(self, topology: Topology) -> None:
        """Forget which pairs have routes: from now on the router of ``topology`` is asked. Routes found so far stay where they
        are in ``links``, for those that are on their way."""
        if topology is self.topology:
            return
        self.topology = topology
        # NOTE: numbers that are taken go to pairs that nobody asks for, which no two are alike
        self.pairs.write("src", 0, np.full(self.count, -1))
        self.pairs.write("dst", 0, np.arange(self.count))
        run = number_pairs.compiled if self.compiled else number_pairs.interpreted
        self._rehash(run, self.count, self._table.rows)

    def numbers(self, src: Any, dst: Any, lane: NDArray[np.int32] | None = None) -> Any:
        """Pair number of every row, in the form (list or int32 array) of the columns given. Raises TopologyError from the
        router where hosts are not connected."""
        if lane is not None:
            dst = self._places(dst, lane)
        if self.choices == 1:
            return self._numbers(src, dst)
        # NOTE: all lanes of a pair are asked for at once, so that a new pair's numbers are consecutive
        every = np.arange(self.choices, dtype=np.int32) * self.topology.hosts
        sides = np.repeat(src, self.choices), (np.asarray(dst, dtype=np.int32)[:, None] + every).ravel()
        wide = [np.ascontiguousarray(side, dtype=np.int32) for side in sides]
        return self._numbers(*(wide if self.compiled else [side.tolist() for side in wide]))[:: self.choices]

    def _places(self, dst: Any, lane: NDArray[np.int32]) -> Any:
        """Destinations as the table knows them; a lane that does not exist stands for no link at all."""
        chosen = np.where(lane < 0, self.topology.ways, 0 if self.choices > 1 else lane)
        places = np.asarray(dst, dtype=np.int32) + self.topology.hosts * chosen.astype(np.int32)
        return places if self.compiled else places.tolist()

    def _numbers(self, src: Any, dst: Any) -> Any:
        compiled = self.compiled
        run = number_pairs.compiled if compiled else number_pairs.interpreted
        out = np.empty(len(src), dtype=np.int32) if compiled else [0] * len(src)
        known, count, row = self.count, self.count, 0
        while True:
            row, count = run(row, src, dst, self._table["pair"], self.pairs["src"], self.pairs["dst"], count, out)
            if row == len(src):
                break
            self._widen(run, count)
        try:
            self._route(known, count)
        except Exception:
            self._rehash(run, known, self._table.rows)
            raise
        return out

    def row_numbers(self, transfers: Transfers, src: Any, dst: Any) -> Any:
        """As :meth:`numbers`, for the rows of ``transfers``, whose hosts ``src`` and ``dst`` are in the form of the table."""
        pattern = transfers.pattern
        if pattern is None:
            return self.numbers(src, dst, transfers.lane)
        sides = pair_hosts(transfers)
        if self.compiled:
            return self.numbers(*sides, pattern.lane)[pattern.pair]
        known = self.numbers(sides[0].tolist(), sides[1].tolist(), pattern.lane)
        return [known[pair] for pair in pattern.pair.tolist()]

    def routes(
        self, src: NDArray[np.int32], dst: NDArray[np.int32], lane: NDArray[np.int32] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Length of the route of every pair, and the links on all of them one after the other. Raises as :meth:`numbers`.

        Where transfers choose their way, these are all the routes of a pair, so many times as many. Asked for a great many,
        the table compiles itself.
        """
        more = 2 * len(src) * self.choices
        self._work += more
        if number_pairs.for_work(self._work, self._work - more)[1]:
            self.compile()
        if self.compiled:
            sides = np.ascontiguousarray(src, dtype=np.int32), np.ascontiguousarray(dst, dtype=np.int32)
            pair = self._choices_from(self.numbers(*sides, lane))
            first = self.pairs["first"][pair]
            length = self.pairs["first"][pair + 1] - first
            skip = np.repeat(first - np.cumsum(length) + length, length)
            return length, self.links["id"][skip + np.arange(len(skip))]
        pairs = self.numbers(src.tolist(), dst.tolist(), lane)
        if self.choices > 1:
            pairs = self._choices_from(np.array(pairs, dtype=np.int32)).tolist()
        firsts, ids = self.pairs["first"], self.links["id"]
        found = [ids[firsts[pair] : firsts[pair + 1]] for pair in pairs]
        return np.array([len(one) for one in found], dtype=np.int64), np.array(list(chain(*found)), dtype=np.int32)

    def _choices_from(self, pair: NDArray[np.int32]) -> NDArray[np.int32]:
        """The numbers of all routes to choose from."""
        if self.choices == 1:
            return pair
        return np.asarray(pair[:, None] + np.arange(self.choices, dtype=np.int32), dtype=np.int32).ravel()

    def _widen(self, run: Any, count: int) -> None:
        """Four times the room for pairs."""
        self.pairs.reserve(2 * self._table.rows + 1)
        self._rehash(run, count, 4 * self._table.rows)

    def _rehash(self, run: Any, count: int, rows: int) -> None:
        """Number the first ``count`` pairs anew in a table of ``rows`` (they keep their numbers)."""
        table = Columns(rows, pair="i4")
        if self._table.compiled:
            table.compile()
        self._table = table
        src, dst = self.pairs["src"][:count], self.pairs["dst"][:count]
        again = np.empty(count, dtype=np.int32) if table.compiled else [0] * count
        run(0, src, dst, table["pair"], self.pairs["src"], self.pairs["dst"], 0, again)

    def _route(self, known: int, count: int) -> None:
        """Ask the topology for the routes of pairs ``known ... count - 1``."""
        if count == known:
            return
        src, dst = (np.array(self.pairs[name][known:count], dtype=np.int32) for name in ("src", "dst"))
        offsets, ids = self._ask(src, dst)
        first = int(self.pairs["first"][known])
        self.links.reserve(first + len(ids))
        self.links.write("id", first, ids)
        self.pairs.reserve(count + 1)
        self.pairs.write("first", known + 1, first + np.asarray(offsets[1:], dtype=np.int64))
        self.count = count

    def _ask(self, src: NDArray[np.int32], place: NDArray[np.int32]) -> Paths:
        """The routes to destinations as :meth:`_places` writes them."""
        topology = self.topology
        lane, dst = place // topology.hosts, place % topology.hosts
        if not lane.any():
            return topology.paths(src, dst)
        real = np.flatnonzero(lane < topology.ways)
        some, ids = topology.paths(src[real], dst[real], lane[real])
        length = np.zeros(len(src), dtype=np.int64)
        length[real] = np.diff(some)
        offsets = np.zeros(len(src) + 1, dtype=np.int64)
        np.cumsum(length, out=offsets[1:])
        return offsets, ids

    def of(self, pair: int) -> NDArray[np.int32]:
        """Link ids of one pair's route."""
        first = self.pairs["first"]
        return np.array(self.links["id"][first[pair] : first[pair + 1]], dtype=np.int32)
