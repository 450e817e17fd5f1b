"""Floor 1: network levels, interchangeable behind :class:`~distsim.network.model.NetworkModel`."""
