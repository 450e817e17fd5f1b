"""Floor 1: execution-graph traces, from any format into one columnar :class:`~distsim.trace.graph.TaskGraph` and back."""
