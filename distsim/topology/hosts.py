"""What every builder lets one say of its hosts: the kind of device that sits at them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from distsim.params import Parameters

#: a kind of device, such as h100; the topology carries the name and knows nothing else of it
Device = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.\-]*$")]


class HostParameters(Parameters):
    """Base of a builder's ``Params``: sizes and links are the builder's, what sits at the hosts is the same everywhere."""

    device: Device | None = Field(None, description="kind of device at the hosts, such as h100; default: not said")
