"""Floor 7: studies of many runs (`distsim sweep`) and the search for the best one (`distsim search`)."""
