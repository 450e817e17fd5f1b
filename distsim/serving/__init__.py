"""Serving of language models, request by request: arrivals, routers, schedulers, KV caches, replicas (floor 4)."""
