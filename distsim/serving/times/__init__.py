"""How long an iteration takes, by its shape: providers of the role ``iteration``."""
