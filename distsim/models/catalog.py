"""Models by name: shipped YAML files, each a list of models, and Hugging Face ``config.json`` files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from distsim.errors import ConfigError, UnknownNameError
from distsim.models.spec import Model

FOLDER = Path(__file__).parent / "data"


@cache
def models() -> dict[str, Model]:
    """All shipped models by name."""
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        for entry in yaml.safe_load(file.read_text()):
            try:
                model = Model(**entry)
            except ValidationError as error:
                raise ConfigError(f"not a model: {error}", where=str(file)) from None
            found[model.name] = model
    return found


def model(name: str) -> Model:
    """The model of that name, of a YAML file, or of a Hugging Face config.json (or a folder that holds one).

    Raises: UnknownNameError with near names; ConfigError for a file that describes no such model.
    """
    known = models()
    wanted = name.strip().lower().replace("_", "-")
    if wanted in known:
        return known[wanted]
    raise UnknownNameError("model", name, known)
