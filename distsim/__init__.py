"""distsim: a discrete-event simulator of distributed ML training and serving."""

__version__ = "0.1.0"
