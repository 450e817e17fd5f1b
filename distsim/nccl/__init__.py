"""NCCL as a model: which algorithm and protocol it takes, on how many channels, how long that lasts, and which transfers it makes."""
