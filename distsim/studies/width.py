"""A model made wider or narrower at equal layers: what a study of the compute/communication ratio turns as "hidden size"."""

from __future__ import annotations

import math

from distsim.errors import ConfigError
from distsim.models.spec import Model

#: feed-forward widths are multiples of this: what tensor parallelism and tiles divide
GRAIN = 256


def widened(model: Model, hidden: int) -> Model:
    """The model with this hidden size: heads of the same size, feed-forward in proportion (to the nearest multiple of 256), as
    many key-value heads as before, or the most that still divide the heads.

    Raises: ConfigError where ``hidden`` is no multiple of the head size, or the model compresses its keys (MLA).
    """
    if model.mla is not None:
        raise ConfigError(f"{model.name} compresses its keys and values: its width is not one number", where=f"hidden={hidden}")
    whole, rest = divmod(hidden * model.heads, model.hidden)
    if hidden < 1 or rest or not whole:
        step = model.hidden // math.gcd(model.hidden, model.heads)
        raise ConfigError(f"hidden {hidden} is not a whole number of heads of {model.name}", expected=f"a multiple of {step}")

    def scaled(width: int) -> int:
        return max(GRAIN, round(width * hidden / model.hidden / GRAIN) * GRAIN) if width else 0

    changes: dict[str, object] = {
        "name": f"{model.name}-h{hidden}", "hidden": hidden, "heads": whole, "kv_heads": math.gcd(model.kv_heads, whole),
        "ffn_hidden": scaled(model.ffn_hidden),
    }  # fmt: skip
    if model.moe is not None:
        wide = {name: scaled(getattr(model.moe, name)) for name in ("ffn_hidden", "shared_ffn_hidden")}
        changes["moe"] = model.moe.model_copy(update=wide)
    return model if hidden == model.hidden else model.model_copy(update=changes)
