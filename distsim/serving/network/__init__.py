"""Serving on a cluster's network: where replicas sit, which links they use, iterations as task graphs on the engine."""
