"""Floor 2: collective algorithms as pure schedules: (operation, group size, bytes, chunks) -> transfers, without time."""
