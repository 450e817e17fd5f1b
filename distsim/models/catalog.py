"""Models by name: shipped YAML files, each a list of models, files of one's own, and Hugging Face ``config.json`` files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distsim.errors import ConfigError, UnknownNameError
from distsim.models.dlrm import dlrms
from distsim.models.huggingface import read_config
from distsim.models.spec import Model
from distsim.params import worst

FOLDER = Path(__file__).parent / "data"


@cache
def models() -> dict[str, Model]:
    """All shipped models by name."""
    return {one.name: one for file in sorted(FOLDER.glob("*.yaml")) for one in read_models(file)}


@cache
def _by_spelling() -> dict[str, str]:
    """Folded spelling of every name and alias -> name."""
    return {folded(spelling): name for name, one in models().items() for spelling in (name, *one.aliases)}


def folded(text: str) -> str:
    """A spelling without what people vary: case and separators; the dot of a version stays.

    >>> folded("Qwen3_235B_a22B"), folded("Llama-3.1 8B"), folded("LLAMA3_70B")
    ('qwen3235ba22b', 'llama3.18b', 'llama370b')
    """
    return re.sub(r"[\s_:,/-]", "", text.lower())


def model(name: str) -> Model:
    """The model of that name or alias, however spelt, of a YAML file that holds one, or of a Hugging Face config.json (or a
    folder that holds one). What a config.json says that a Model cannot hold is told by ``load`` only.

    Raises: UnknownNameError with near names; ConfigError for a file that describes no such model.
    """
    return load(name)[0]


def load(name: str) -> tuple[Model, tuple[str, ...]]:
    """As ``model``, with the warnings of reading it: what was assumed and what was left out."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        found = list(read_models(path))
        if len(found) != 1:
            raise ConfigError(f"{len(found)} models", where=name, expected="a file that describes one model")
        return found[0], ()
    if path.suffix == ".json" or (path.is_dir() and folded(name) not in _by_spelling()):
        return read_config(path)
    # NOTE: hub names carry their owner: meta-llama/Llama-3.1-8B
    spelling = next((one for one in (folded(name), folded(name.rsplit("/", 1)[-1])) if one in _by_spelling()), None)
    if spelling is not None:
        return models()[_by_spelling()[spelling]], ()
    if name in dlrms():
        raise ConfigError(f"{name} recommends and is no transformer", expected="a language model")
    raise UnknownNameError("model", name, models())


def read_models(file: Path) -> Iterator[Model]:
    """The models of a YAML file: a list, or one alone. Raises ConfigError naming file, model and key."""
    try:
        text = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {' '.join(str(error).split())}", where=str(file)) from None
    for entry in text if isinstance(text, list) else [text]:
        yield _checked(entry, file)


def _checked(entry: Any, file: Path) -> Model:
    if not isinstance(entry, dict):
        raise ConfigError("no model description", where=str(file), expected=f"keys {', '.join(Model.model_fields)}")
    try:
        return Model(**{str(key): value for key, value in entry.items()})
    except ValidationError as error:
        first = worst(error)
        key = ".".join(str(part) for part in first["loc"])
        near = difflib.get_close_matches(key, Model.model_fields, n=2, cutoff=0.5) if first["type"] == "extra_forbidden" else ()
        reason = first["msg"].removeprefix("Value error, ")
        told = f"{key}: {reason}" if key else reason
        raise ConfigError(f"model {entry.get('name', '?')!r}: {told}", where=str(file), near=near) from None
