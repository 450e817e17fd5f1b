"""Captured traces: what the PyTorch profiler (Kineto) recorded of a run, as an execution graph that replays."""
