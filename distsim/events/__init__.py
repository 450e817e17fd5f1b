"""Floor 4: timed events on any run: links and switches that fail or slow down, slow and lost ranks, jitter, others' traffic."""
