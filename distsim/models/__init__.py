"""Floor 0: models as shapes: layers, hidden sizes, heads, experts (YAML files in ``data/``, or a Hugging Face config.json)."""
