"""Floor 8: one module per command. This index is static text, so that ``--help`` imports nothing heavy.

A command module has ``prepare(parser)``, which adds its arguments, and ``run(args) -> int``, which does the work, prints
the result to stdout and returns the exit code. Errors are raised (DistsimError); :func:`main` prints them to stderr.
"""

from __future__ import annotations

#: command -> one-line help, in the order of ``distsim --help``
COMMANDS = {
    "run": "replay a trace on a simulated cluster: step time, what it is made of, what limits it",
    "compare": "run one workload on several network levels, and see where they part",
    "explain": "why a run took as long as it did: the critical path as a story, links, late ranks, slack, bounds",
    "demo": "the same on a shipped Llama trace, in one word",
    "train": "one training step of a model on a cluster: time, utilisation, memory, where it goes",
    "serve": "a service under load, request by request: throughput, latencies, goodput, what limits it",
    "generate": "write a training step of a model and a plan as a trace",
    "trace": "summarise a trace and list its defects",
    "convert": "convert a trace between all formats",
    "topo": "size, bisection, diameter and links of a topology, and a drawing of it",
    "collective": "time one collective on a topology",
    "flows": "run a flow scenario (netref/1): completion of every flow, busiest links",
    "sweep": "run a study: grids of runs in parallel, resumable, with a table and a Pareto page",
    "capacity": "the highest load that a service bears under an objective; deployments side by side; GPUs for a load",
    "search": "the best parallelism plan of a model on a cluster, with the proof of what was pruned",
    "whatif": "change links, devices, collectives or the plan of a finished run: estimated at once, then simulated; levers",
    "goodput": "what failures, checkpoints, restarts and slow nodes leave of a training run over days",
    "report": "one HTML file from results: answer, breakdown, timeline, links, critical path, memory; two side by side",
    "ui": "results in the browser: an index, reports, two side by side, knobs to run them again",
    "study": "inquiries: where network levels break down, what accuracy costs, what kernel times imply",
    "calibrate": "fit the NCCL model, or a GPU's GEMMs, to measurements of your own system",
    "validate": "check distsim against reference results",
}
