"""How long prompts and answers are: one law per file, under role ``lengths``."""
