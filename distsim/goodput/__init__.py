"""Goodput: what is left of a cluster's time over days, after failures, checkpoints, restarts, repairs and slow machines.

It has a coarse clock of its own: float seconds, one event per failure, not per step. Only the time of a step comes from the
simulation of a step.
"""
