# %% [markdown]
# # How many GPUs serve this load?
#
# Llama-3 8B on H100 under a latency objective: the load that one replica bears with 1, 2 and 4 GPUs, which of them is cheapest
# per request, what latency does on the way to the limit, and how many replicas a given load takes. Some ten seconds of one
# core: `python docs/notebooks/serving_capacity.py`.

# %%
import math

from distsim.analysis.serving import summary
from distsim.analysis.serving_slo import Slo
from distsim.serve import serve
from distsim.sweep.kinds.capacity import found

try:  # in a notebook, objects show themselves
    from IPython.display import display as show
except ImportError:
    show = print

LENGTHS = "lognormal:prompt_median=900,prompt_sigma=0.5,output_median=220,output_sigma=0.5"
SERVICE = {"model": "llama3-8b", "requests": "poisson", "lengths": LENGTHS}
OBJECTIVE = "ttft=1s,tpot=25ms"

# %% [markdown]
# ## Capacity by degree of tensor parallelism
#
# The highest rate of Poisson arrivals at which 99 % of the requests keep both bounds, found by bisection.

# %%
capacities = {}
for tp in (1, 2, 4):
    point = {**SERVICE, "cluster": f"h100:gpus={tp}", "tp": tp, "replicas": 1, "slo": OBJECTIVE}
    answer, _ = found({**point, "n": 250, "seeds": 1, "tolerance": 0.1})
    capacities[tp] = answer.mean
    print(f"tp {tp}: {answer.mean:5.1f} requests/s, {answer.mean / tp:5.1f} per GPU; limited by {answer.limited_by}")
cheapest = max(capacities, key=lambda tp: capacities[tp] / tp)

# %% [markdown]
# ## Latency on the way to the limit
#
# Both grow with the batch; past the capacity it is the time per token that breaks its bound first.

# %%
curve = []
for share in (0.3, 0.6, 0.9, 1.2):
    rate = share * capacities[cheapest]
    run = serve(**{**SERVICE, "requests": f"poisson:qps={rate}"}, cluster=f"h100:gpus={cheapest}", tp=cheapest, n=250)
    told = summary(run, Slo.parse(OBJECTIVE))
    first, each = (one.p99 / 1e9 for one in (told.latencies.ttft, told.latencies.tpot))
    curve.append((rate, first, each, told.goodput.share))
    print(f"{rate:5.1f} requests/s: P99 TTFT {first:7.1f} ms, TPOT {each:5.1f} ms; {100 * told.goodput.share:3.0f} % keep both")
show(run)

# %% [markdown]
# ## Replicas for 100 requests per second
#
# Ten per cent of head room over the capacity of one, then a run of all of them to see that they keep the objective.

# %%
LOAD = 100.0
replicas = math.ceil(1.1 * LOAD / capacities[cheapest])
fleet = serve(
    **{**SERVICE, "requests": f"poisson:qps={LOAD}"}, cluster=f"h100:gpus={replicas * cheapest}", tp=cheapest,
    replicas=replicas, router="least_outstanding", n=250 * replicas,
)  # fmt: skip
kept = summary(fleet, Slo.parse(OBJECTIVE)).goodput.share
print(f"{replicas} replicas of {cheapest} GPUs: {100 * kept:.1f} % of the requests within {OBJECTIVE}")
