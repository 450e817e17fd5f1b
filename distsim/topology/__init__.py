"""Floor 0: topologies, named nodes and directed links."""
