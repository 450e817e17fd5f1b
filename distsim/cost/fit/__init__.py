"""Floor 2: fitting models of kernels to measurements; numpy only."""
