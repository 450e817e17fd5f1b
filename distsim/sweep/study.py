"""A study as its YAML file says it (docs/sweeps.md)::

    kind: training
    name: gpt3-175b
    base: {model: gpt3-175b, cluster: "h100_superpod:gpus=1024", global_batch: 1024}
    variables: {gpus: 1024}                     # names of the study's own, for expressions
    grid:
      tp: {from: 1, to: 8, factor: 2}
      pp: [1, 2, 4, 8, 16]
      recompute: [none, selective, full]
    zip:
      - {seq: [2048, 8192], micro_batch: [4, 1]}
    derived: {dp: "gpus / (tp * pp)"}
    constraints: ["dp >= 8", "tp > 1 or recompute != 'selective'"]
    objectives: {step_ps: min, memory_bytes: min}

What a file may say is here; which points that makes is in :mod:`distsim.sweep.points`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distsim.errors import ConfigError
from distsim.params import worst
from distsim.sweep.shipped import shipped, shipped_file

_LONGEST = 100_000  #: values of one range


class Range(BaseModel):
    """``{from: 1, to: 64, factor: 2}``: 1, 2, 4 ... 64; or ``step``. Both ends included where they are met."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: int | float = Field(alias="from")
    to: int | float
    factor: int | float | None = Field(None, gt=1)
    step: int | float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> Range:
        if (self.factor is None) == (self.step is None):
            raise ValueError("a range has either factor or step")
        if self.to < self.first or (self.factor is not None and self.first <= 0):
            raise ValueError(f"a range from {self.first} to {self.to} leads nowhere")
        return self

    def values(self) -> list[int | float]:
        """All of them. Raises ConfigError where there are more than 100,000."""
        found: list[int | float] = []
        at = self.first
        while at <= self.to:
            found.append(at)
            if len(found) > _LONGEST:
                raise ConfigError(f"a range from {self.first} to {self.to} has more than {_LONGEST:,} values", where="grid")
            # NOTE: by index, so that steps of 0.1 do not drift
            at = at * self.factor if self.factor is not None else self.first + len(found) * (self.step or 1)
        return found


Axis = list[Any] | Range | int | float | str | bool | None  #: the values of one field; a bare one is a list of one


class Study(BaseModel):
    """A validated study file. Points are the product of cases, zip groups, variables and grid over the fixed base."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(description="training, run, or another registered kind")
    name: str = Field("", description="default: the file's name")
    about: str = ""
    base: dict[str, Any] = Field(default_factory=dict, description="fields that are the same in all points")
    variables: dict[str, Axis] = Field(default_factory=dict, description="names for expressions only, values as in the grid")
    grid: dict[str, Axis] = Field(default_factory=dict, description="field -> values: every combination")
    zip: list[dict[str, Axis]] = Field(default_factory=list, description="groups of fields that vary together")
    points: list[dict[str, Any]] = Field(default_factory=list, description="cases; their fields override the base")
    derived: dict[str, str] = Field(default_factory=dict, description="field -> expression, read in order")
    constraints: list[str] = Field(default_factory=list, description="expressions that hold for every point that is run")
    objectives: dict[str, Literal["min", "max"]] = Field(default_factory=dict, description="columns; the first names the best")
    sample: int = Field(0, ge=0, description="run at most this many of the points that pass, drawn with seed; 0: all")
    seed: int = Field(0, ge=0)

    @property
    def varied(self) -> frozenset[str]:
        """Fields that differ between points."""
        axes = {**self.grid, **{name: axis for group in self.zip for name, axis in group.items()}}
        several = {name for name, axis in axes.items() if len(listed(axis)) > 1}
        cases = {name for case in self.points for name in case} if len(self.points) > 1 else set()
        return frozenset(several | cases | set(self.derived))


def listed(axis: Axis) -> list[Any]:
    """The values of an axis. Raises ConfigError where a range is too long."""
    return axis.values() if isinstance(axis, Range) else axis if isinstance(axis, list) else [axis]


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, except that a key that is given twice is refused rather than overwritten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def find_study(name: str) -> Path:
    """The file of that path, or the shipped study of that name. Raises ConfigError where there is none."""
    path = Path(shipped_file("studies", name, ".yaml"))
    if not path.is_file():
        import difflib

        known = sorted(shipped("studies", ".yaml"))
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        raise ConfigError("is no file", where=name, near=near, expected=f"a study in YAML, or one of {', '.join(known)}")
    return path


def read_study(path: Path) -> Study:
    """The study of a file. Raises ConfigError."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not YAML: {error}", where=str(path)) from None
    if not isinstance(document, dict):
        raise ConfigError("is no study", where=str(path), expected="a mapping with kind, base, grid ...")
    return study(document, str(path), path.stem)


def study(document: Mapping[str, Any], where: str = "study", name: str = "study") -> Study:
    """The study of a document. ``name``: where it names none. Raises ConfigError."""
    try:
        made = Study(**document)
    except (ValidationError, TypeError) as error:
        raise _refused(error, where) from None
    return made if made.name else made.model_copy(update={"name": name})


def _refused(error: ValidationError | TypeError, where: str) -> ConfigError:
    """In words, with near names for an unknown key."""
    import difflib

    if isinstance(error, TypeError):
        return ConfigError(str(error), where=where, expected="keys that are text")
    # what is wrong with a mapping of an axis is what is wrong with it as a range
    ranges = [one for one in error.errors() if "Range" in str(one["loc"]) and one["type"] != "model_type"]
    first = min(ranges, key=lambda one: one["type"] != "extra_forbidden") if ranges else worst(error)
    key = ".".join(str(part) for part in first["loc"] if "Range" not in str(part) and part != "list[any]")
    if first["type"] == "extra_forbidden":
        known = ["from", "to", "factor", "step"] if ranges else list(Study.model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=2, cutoff=0.5)
        return ConfigError(f"unknown key {key!r}", where=where, near=near, expected=f"one of {', '.join(known)}")
    return ConfigError(f"{key}: {first['msg'].removeprefix('Value error, ')}", where=where)
