"""Floor 4: workloads, things that submit tasks: trace replay (and, later, parallelism generators)."""
