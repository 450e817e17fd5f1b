"""Floor 2: compute-duration providers: how long each node of a program takes on a device."""
