"""Room in the host's memory for the keys and values of preempted requests (vLLM V0, ``preemption_mode=swap``).

A request that is swapped out is copied to the host before its blocks are handed on, and copied back before it generates again:
the iteration waits for both, as vLLM's worker does, which issues its copies in front of the model on one stream. Where the room
is used up a request is recomputed instead (vLLM stops with an error there).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distsim.errors import ConfigError
from distsim.params import Bandwidth, Parameters, Size
from distsim.serving.kv.transfers import Transfers
from distsim.serving.request import Request
from distsim.units import PS_PER_S, parse_bandwidth, parse_size


class SwapParams(Parameters):
    """Options of policies that can swap. Defaults: vLLM's swap space; what copies over PCIe 5 x16 reach (64 GB/s raw)."""

    preemption: Literal["recompute", "swap"] = Field("recompute", description="what becomes of a preempted request's KV cache")
    swap_space: Size = Field("4GiB", description="of the host's memory, per GPU")
    swap_bandwidth: Bandwidth = Field("50GB/s", description="of copies to and from the host, per GPU")


class Swap:
    """used + free = total, in blocks; every block here belongs to a request that waits for its return."""

    def __init__(
        self, total: int, block_ps: int, transfers: Transfers, block_bytes: float = 0.0, block_tokens: int = 0
    ) -> None:
        """total: blocks that the host has room for. block_ps: of copying one. block_bytes, block_tokens: of one, on a GPU."""
        self.total = self.free = total
        self.out = self.back = 0  #: blocks copied to the host, and from it
        self.block_bytes = block_bytes
        self.block_tokens = block_tokens
        self._block_ps = block_ps
        self._transfers = transfers
        self._held: dict[Request, int] = {}

    @property
    def used(self) -> int:
        """Blocks of swapped requests."""
        return self.total - self.free

    def put(self, request: Request, blocks: int) -> bool:
        """Copy a request's blocks to the host; False where there is no room."""
        if blocks > self.free:
            return False
        self.free -= blocks
        self._held[request] = blocks
        self.out += blocks
        self._transfers.add(blocks * self._block_ps)
        return True

    def take(self, request: Request) -> None:
        """Copy them back."""
        self.back += self._held[request]
        self._transfers.add(self._held[request] * self._block_ps)
        self.drop(request)

    def drop(self, request: Request) -> None:
        """Forget them."""
        self.free += self._held.pop(request)


def swap_of(params: SwapParams, block_bytes: float, transfers: Transfers, block_tokens: int = 0) -> Swap:
    """What options ask for, with blocks of so many bytes per GPU and tokens. Raises ConfigError where no block fits."""
    total = int(parse_size(params.swap_space) // block_bytes)
    if total < 1:
        raise ConfigError(f"swap_space {params.swap_space} holds no KV block of {block_bytes:.0f} bytes", where="scheduler")
    block_ps = round(block_bytes / parse_bandwidth(params.swap_bandwidth) * PS_PER_S)
    return Swap(total, block_ps, transfers, block_bytes, block_tokens)
