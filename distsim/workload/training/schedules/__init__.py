"""Pipeline schedules: each a pure function from (stages, virtual stages, micro-batches) to what every rank does in order."""
