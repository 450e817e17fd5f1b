"""Files of requests: one format per file, under role ``requests``."""
