"""The KV cache of a replica: blocks, shared prefixes, tiers below the GPU's memory."""
