# %% [markdown]
# # Which fabric does a training step need?
#
# The shipped trace `llama3_8b_tp8_dp8` (one step on 64 GPUs: tensor parallelism inside nodes, data parallelism across) is
# replayed on several fabrics: how much of it is exposed communication, which links it loads, and from which oversubscription on
# the network is what one waits for. Some ten seconds of one core: `python docs/notebooks/topology.py`.

# %%
import pyarrow as pa
import pyarrow.compute as pc

from distsim import read_trace, simulate
from distsim.analysis.breakdown import breakdown
from distsim.analysis.links import domains
from distsim.cli.shipped import shipped

try:  # in a notebook, objects show themselves
    from IPython.display import display as show
except ImportError:
    show = print

TRACE = read_trace(str(shipped()["llama3_8b_tp8_dp8"]))

# %% [markdown]
# ## Fabrics side by side
#
# `analytic` knows no contention, `fluid` shares every link fairly. Where both agree the fabric carries the step; where they
# part, links are shared.

# %%
FABRICS = {
    "rails, 400 Gbit/s": "rail_optimized:bandwidth=400Gbps",
    "rails, 100 Gbit/s": "rail_optimized:bandwidth=100Gbps",
    "fat tree, no NVLink": "fat_tree:bandwidth=400Gbps",
}
results = {}
for name, topology in FABRICS.items():
    for level in ("analytic", "fluid"):
        results[name, level] = simulate(TRACE, topology, network=level)
    times = " ".join(f"{level} {results[name, level].makespan / 1e9:8.1f} ms" for level in ("analytic", "fluid"))
    exposed = breakdown(results[name, "fluid"]).average()["exposed"]
    print(f"{name:22} {times}  {100 * exposed:3.0f} % exposed")
show(results["rails, 400 Gbit/s", "fluid"])

# %% [markdown]
# ## Oversubscription
#
# A quarter of the cables above the first switch: does the step notice? Data parallelism of rail-aligned ranks stays on its rail
# switch, so there the spine may be thin; on a fat tree the same traffic crosses it.

# %%
steps = {}
for name in ("rails, 400 Gbit/s", "fat tree, no NVLink"):
    thin = simulate(TRACE, f"{FABRICS[name]},oversubscription=4", network="fluid")
    for ratio, result in ((1, results[name, "fluid"]), (4, thin)):
        steps[name, ratio] = result.makespan
        use = ", ".join(f"{one.domain} {100 * one.max:.0f} %" for one in domains(result))
        print(f"{name:20} {ratio}:1  {result.makespan / 1e9:7.1f} ms; busiest link of {use}")

# %% [markdown]
# ## Where the bytes go
#
# The use of links is an Arrow table: group it, join it, hand it to DuckDB or polars.

# %%
links = results["fat tree, no NVLink", "fluid"].links_table()
by_domain = links.group_by("domain").aggregate([("bytes", "sum"), ("utilisation", "max"), ("link", "count")])
print(by_domain.to_pylist())
busiest = links.take(pc.sort_indices(links, [("utilisation", "descending")])[:5])
print(busiest.select(["src", "dst", "utilisation"]).to_pylist())

# %% [markdown]
# ## How long each collective took
#
# From when its last member had come to its last delivery, by group: the spans as Arrow, without a copy.

# %%
collectives = results["rails, 400 Gbit/s", "fluid"].collectives_table()
took = pc.subtract(collectives["end_ps"], collectives["start_ps"])
table = pa.table({"group": collectives["group"], "operation": collectives["operation"], "us": pc.divide(took, 1e6)})
for row in table.group_by(["group", "operation"]).aggregate([("us", "mean"), ("us", "max"), ("us", "count")]).to_pylist():
    print(row)
