"""Results of a folder in a browser, on this machine only: their reports, two side by side, and knobs to run them again."""
