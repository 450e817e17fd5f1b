"""Routing policies: a module each, registered under role ``routing``."""
