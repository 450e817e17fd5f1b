"""The forward pass of one iteration on one rank: its operations, by layer, and what they take on idle links."""
