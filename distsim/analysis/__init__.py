"""Floor 6: findings. Pure functions of a finished :class:`~distsim.result.Result`; nothing here prints or writes."""
