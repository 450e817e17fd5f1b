"""Schedules of NCCL's shape: what a Plan moves, over which links, in which order, so that it runs under contention."""
