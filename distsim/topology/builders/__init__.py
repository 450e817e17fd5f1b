"""One module per topology; each registers itself under role ``topology``."""
