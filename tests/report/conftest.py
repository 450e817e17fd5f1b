"""Results folders of every kind, made once: runs, services, studies, one of 1,024 ranks and one of 100,000 tasks."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from building import program

from distsim import simulate
from distsim.analysis.serving_findings import findings
from distsim.analysis.serving_slo import Slo
from distsim.cli.main import main
from distsim.cli.shipped import shipped
from distsim.report import serving_folder
from distsim.report.folder import save
from distsim.report.ui.server import Server
from distsim.report.ui.shelf import Shelf
from distsim.serve import ServeSpec, serve
from distsim.trace.graph import NodeType, TaskGraph

STUDY = """
kind: run
name: {name}
base: {{trace: {trace}, network: analytic}}
variables: {{fabric: [fat_tree, ring], gbps: [100, {gbps}]}}
derived: {{topo: "f'{{fabric}}:bandwidth={{gbps}}Gbps'"}}
objectives: {{makespan_ps: min, link_bytes: min}}
"""


def _replicated(ranks, nodes):
    """Ranks that all run one program of computations with a collective now and then."""
    rows = []
    for k in range(nodes):
        before = [k - 1] if k else []
        if k % 16 == 15:
            rows.append((k, NodeType.COMM_COLL, before, {"collective": 0, "bytes": 1 << 20, "name": 1}))
        else:
            rows.append((k, NodeType.COMP, before, {"duration_ps": 10**6 * (1 + k % 7), "name": 0}))
    return TaskGraph((program(rows),), np.zeros(ranks, np.int32), (), names=("gemm", "grads"), source="test")


def _captured(result, count):
    """The run as if it were of a captured trace of ``count`` iterations."""
    spans = result.spans()
    step = (spans.node * count // (int(spans.node.max()) + 1)).astype(np.int32)
    whole = replace(spans, step=step, steps=tuple(f"ProfilerStep#{number}" for number in range(count)))
    return replace(result, make_spans=lambda: whole, spec={**result.spec, "communication": "simulated"})


@pytest.fixture(scope="session")
def results_folder(tmp_path_factory):
    """Folders of results, to be read only: run, run-chunk, deep/other, captured, large, dense, service- and study-a and -b."""
    place = tmp_path_factory.mktemp("results")
    trace = shipped()["dp_overlapped_buckets"]
    save(simulate(trace, "fat_tree"), place / "run")
    save(simulate(trace, "fat_tree", network="chunk"), place / "run-chunk")
    save(simulate(shipped()["moe_all_to_all"], "fat_tree"), place / "deep" / "other")
    save(_captured(simulate(_replicated(4, 96), "fat_tree", network="analytic"), 3), place / "captured")
    save(simulate(_replicated(1024, 97), "fat_tree", network="analytic"), place / "large")
    save(simulate(_replicated(8, 12_500), "fat_tree", network="analytic"), place / "dense")
    for name, qps in (("service-a", 5), ("service-b", 40)):
        spec = ServeSpec.of({
            "model": "llama3-8b", "cluster": "h100:gpus=2", "requests": f"poisson:qps={qps}", "n": 80,
            "lengths": "uniform:prompt=50-900,output=2-60",
        })  # fmt: skip
        result = serve(spec)
        serving_folder.save(result, place / name, findings(result, Slo.parse("ttft=500ms,tpot=50ms")))
    for name, gbps in (("study-a", 200), ("study-b", 400)):
        study = place / f"{name}.yaml"
        study.write_text(STUDY.format(name=name, trace=trace, gbps=gbps))
        assert main(["sweep", str(study), "-o", str(place / name), "--workers", "1", "--quiet"]) == 0
    return place


@pytest.fixture(scope="module")
def server(folder):
    """``distsim ui`` over the module's ``folder``."""
    made = Server(Shelf(folder))
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.close()
