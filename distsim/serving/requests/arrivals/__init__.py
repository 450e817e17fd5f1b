"""When requests arrive: one process per file, under role ``arrivals``."""
