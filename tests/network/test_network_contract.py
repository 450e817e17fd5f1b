"""Every registered level passes the contract that third parties are given; and the contract notices broken levels."""

import pytest

from distsim import registry
from distsim.network.check import check_network_model
from distsim.network.chunk import Chunk

CLAIMS = {"analytic": {"contends": False}, "ideal": {"contends": False, "timed": False}}


@pytest.mark.parametrize("level", registry.names("network"))
def test_level_keeps_the_contract(level):
    check_network_model(registry.lookup("network", level), **CLAIMS.get(level, {}))


class Forgetful(Chunk):
    def run_until(self, limit):
        return super().run_until(limit)[:-1]


class Hasty(Chunk):
    def start(self, transfers, at):
        transfers.bytes[:] //= 2
        return super().start(transfers, at)


@pytest.mark.parametrize("broken", [Forgetful, Hasty])
def test_contract_notices_broken_levels(broken):
    with pytest.raises(AssertionError):
        check_network_model(broken)
