"""Floor 0: what a GPU can do: peaks, memory, bandwidths, each figure with its source (YAML files in ``gpus/``)."""
