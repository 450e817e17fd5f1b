"""Where requests come from: arrival processes, lengths, sessions, traces of services."""
