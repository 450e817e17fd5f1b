# %% [markdown]
# # How should Llama-3 70B be spread over 64 H100?
#
# One training step, simulated for every combination of tensor and pipeline parallelism that fits, then a look inside the best
# one: which part of the step is lost to what, and what would help. No GPU is needed; this script takes some ten seconds of one
# core. Open it as a notebook in any editor that knows `# %%` cells, or run it: `python docs/notebooks/parallelism.py`.

# %%
import tempfile

from distsim.sweep.conduct import conduct
from distsim.sweep.study import study
from distsim.training import train

try:  # in a notebook, objects show themselves
    from IPython.display import display as show
except ImportError:
    show = print

# %% [markdown]
# ## The grid
#
# `dp` follows from the GPUs. Plans that break a constraint or do not fit in memory are refused before anything is simulated,
# with the reason.

# %%
BASE = {
    "model": "llama3-70b", "cluster": "dgx_h100:gpus=64", "global_batch": 128, "seq": 8192, "micro_batch": 1, "zero": 1,
    "recompute": "full",
}  # fmt: skip
grid = study(
    {
        "kind": "training", "name": "llama3_70b", "base": BASE, "variables": {"gpus": 64},
        "grid": {"tp": [1, 2, 4, 8], "pp": [1, 2, 4, 8]}, "derived": {"dp": "gpus / (tp * pp)"},
        "objectives": {"step_ps": "min", "memory_bytes": "min"},
    }
)  # fmt: skip
with tempfile.TemporaryDirectory() as folder:
    found = conduct(grid, "parallelism", folder=folder, workers=1).found
show(found)
for row in sorted(found.rows, key=lambda row: row["step_ps"]):
    print(f"tp {row['tp']} pp {row['pp']}: step {row['step_ps'] / 1e12:6.2f} s, {row['memory_bytes'] / 2**30:5.1f} GiB")

# %% [markdown]
# ## The best plan, taken apart
#
# Bubbles grow with `pp`, exposed tensor-parallel communication with `tp`; the fastest plan balances them within the memory.

# %%
best = found.rows[found.best]
step = train(**BASE, tp=best["tp"], pp=best["pp"], dp=best["dp"])
show(step)

# %% [markdown]
# ## Spans as an Arrow table
#
# `spans_table()` is a pyarrow Table; pandas, polars and DuckDB take it (and the span table itself) without copying numbers.
# Ranks that do the same are simulated once: `multiplicity` says how many a row stands for.

# %%
spans = step.result.spans_table()
busy: dict[str, int] = {}
columns = spans.select(["kind", "start_ps", "end_ps", "multiplicity"]).to_pydict()
for kind, start, end, times in zip(*columns.values(), strict=True):
    busy[kind] = busy.get(kind, 0) + (end - start) * times
for kind, time in sorted(busy.items(), key=lambda item: -item[1]):
    print(f"{kind:16} {time / best['dp'] / best['tp'] / best['pp'] / 1e12:8.3f} s per GPU")

# %% [markdown]
# ## What a larger batch buys
#
# With a pipeline, more micro-batches fill it: 4 x 8 x 2 plans at the batch above, twice and four times as much.

# %%
mfu = {}
for batch in (128, 256, 512):
    larger = train(**{**BASE, "global_batch": batch}, tp=4, pp=8, dp=2)
    mfu[batch] = larger.mfu
    print(f"tp 4, pp 8, dp 2, global batch {batch}: MFU {100 * larger.mfu:.1f} %")
