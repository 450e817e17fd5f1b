"""Floor 7: reference suites, one file each: distsim's answers beside those of other tools and of measurements."""
