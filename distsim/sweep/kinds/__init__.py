"""Kinds of studies, one module each, registered under role ``study``."""
