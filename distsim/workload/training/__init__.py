"""Training: from a model and a parallelism plan to an execution graph, its memory, and the times of its blocks."""
