"""Floor 4: compatibility profiles, each a faithful model of another tool, with its quirks in modules of its own."""
