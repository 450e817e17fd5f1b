"""Deep learning recommendation models: embedding tables, two MLPs and an interaction between them.

Source: Naumov et al., "Deep learning recommendation model for personalization and recommendation systems" (2019); the cross
network is Wang et al., DCN V2 (2021), as in MLPerf Training's DLRM-DCNv2.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distsim.errors import ConfigError, UnknownNameError
from distsim.params import worst

FOLDER = Path(__file__).parent / "recommendation"


class Table(BaseModel):
    """An embedding table, or several alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(gt=0)
    pooling: int = Field(1, gt=0, description="rows looked up and summed per sample")
    count: int = Field(1, gt=0, description="tables of this shape")


class Dlrm(BaseModel):
    """A recommendation model: dense features through the bottom MLP, sparse ones through tables of width ``dim``, all of them
    through the interaction, its output through the top MLP.

    bottom, top: widths of the layers' outputs; the bottom MLP ends at ``dim``, the top one at the logit.
    interaction: dot (products of all pairs beside the bottom's output), cat (concatenation), dcn (low-rank cross layers).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: str = ""
    dense: int = Field(gt=0, description="dense features")
    dim: int = Field(gt=0, description="width of every embedding")
    tables: tuple[Table, ...] = Field(min_length=1)
    bottom: tuple[int, ...] = Field(min_length=1)
    top: tuple[int, ...] = Field(min_length=1)
    interaction: Literal["dot", "cat", "dcn"] = "dot"
    cross_layers: int = Field(0, ge=0, description="of dcn")
    cross_rank: int = Field(0, ge=0, description="of dcn")

    @model_validator(mode="after")
    def _consistent(self) -> Dlrm:
        if min(*self.bottom, *self.top) < 1:
            raise ValueError("an MLP layer without outputs")
        if self.bottom[-1] != self.dim:
            raise ValueError(f"the bottom MLP ends at {self.bottom[-1]}, embeddings are {self.dim} wide")
        if (self.interaction == "dcn") != bool(self.cross_layers and self.cross_rank):
            raise ValueError("cross_layers and cross_rank belong to interaction dcn, which needs both")
        return self

    @property
    def features(self) -> int:
        """Sparse features, one per table."""
        return sum(table.count for table in self.tables)

    @property
    def lookups(self) -> int:
        """Embedding rows that a sample reads."""
        return sum(table.count * table.pooling for table in self.tables)

    def interaction_width(self) -> int:
        """Inputs of the top MLP."""
        vectors = self.features + 1
        if self.interaction == "dot":
            return self.dim + vectors * (vectors - 1) // 2
        return vectors * self.dim

    def embedding_parameters(self) -> int:
        """Weights of all tables."""
        return sum(table.count * table.rows for table in self.tables) * self.dim

    def cross_parameters(self) -> int:
        """Weights of the cross layers: two low-rank matrices and a bias each."""
        width = (self.features + 1) * self.dim
        return self.cross_layers * (2 * width * self.cross_rank + width)

    def dense_parameters(self) -> int:
        """Weights of the MLPs and the interaction, which every sample meets, biases included."""
        return self._mlps(biases=True) + self.cross_parameters()

    def parameters(self) -> int:
        """All weights."""
        return self.embedding_parameters() + self.dense_parameters()

    def flops_per_sample(self) -> float:
        """Model FLOPs of one sample, forward and backward: 6 per dense matrix weight; pairwise products; look-ups add none."""
        vectors = self.features + 1
        products = 6.0 * vectors * vectors * self.dim if self.interaction == "dot" else 0.0
        cross = self.cross_layers * 2 * vectors * self.dim * self.cross_rank
        return 6.0 * (self._mlps(biases=False) + cross) + products

    def _mlps(self, *, biases: bool) -> int:
        chains = ((self.dense, *self.bottom), (self.interaction_width(), *self.top))
        return sum(before * after + (after if biases else 0) for chain in chains for before, after in pairwise(chain))


@cache
def dlrms() -> dict[str, Dlrm]:
    """All shipped recommendation models by name."""
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        one = read_dlrm(file)
        found[one.name] = one
    return found


def read_dlrm(file: Path) -> Dlrm:
    """A recommendation model from a YAML file. Raises ConfigError."""
    try:
        entry = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {' '.join(str(error).split())}", where=str(file)) from None
    if not isinstance(entry, dict):
        raise ConfigError("no recommendation model", where=str(file), expected=f"keys {', '.join(Dlrm.model_fields)}")
    try:
        return Dlrm(**{str(key): value for key, value in entry.items()})
    except ValidationError as error:
        first = worst(error)
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{key}: {reason}" if key else reason, where=str(file)) from None


def dlrm(name: str) -> Dlrm:
    """The recommendation model of that name, or of a YAML file. Raises UnknownNameError with near names, ConfigError."""
    if name.endswith((".yaml", ".yml")):
        return read_dlrm(Path(name))
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    if wanted not in dlrms():
        raise UnknownNameError("recommendation model", name, dlrms())
    return dlrms()[wanted]
