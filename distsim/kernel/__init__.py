"""Floor 0: the clock of the control plane and the compiler of the data plane."""
