"""Floor 2: NCCL as a model: which algorithm and protocol it takes, on how many channels, how long, and with which transfers."""
